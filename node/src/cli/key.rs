//! `key`: API keys for the endpoint.
//!
//! Owns: drawing one and showing what goes where. Must not: keep it.

use anyhow::anyhow;
use cocoon_gateway::ApiKey;
use cocoon_protocol::units::NanoTon;

use super::{Context, ExitStatus, Failure};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Draw a key: its secret for the application, its entry for the file that `--api-keys` names.
    ///
    /// The secret is shown once and kept nowhere.
    New {
        /// What the key is called in errors and reports.
        name: String,
        /// The most that it may spend in a day (UTC), such as `0.1 TON`.
        #[arg(long, value_name = "AMOUNT")]
        cap: Option<NanoTon>,
        /// The most that one of its requests may cost.
        #[arg(long, value_name = "AMOUNT")]
        request_cap: Option<NanoTon>,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    let Command::New { name, cap, request_cap } = command;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        let problem = anyhow!("a key's name has 1 to 64 letters, digits or any of `-_.`");
        return Err(Failure::new(problem).with_status(ExitStatus::Usage));
    }
    let mut random = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(random.as_mut_slice())
        .map_err(|_| Failure::new(anyhow!("the operating system gives no randomness")))?;
    let secret = zeroize::Zeroizing::new(format!("sk-{}", hex::encode(*random)));
    let printer = &context.printer;
    printer.note("the secret, for the application; it is shown only now:\n");
    printer.line(&*secret)?;
    printer.note("the entry, for the file that `--api-keys` names:\n");
    printer.line("\n[[key]]")?;
    printer.line(format_args!("name = \"{name}\""))?;
    let hash = hex::encode(ApiKey::from_secret(&secret).as_hash());
    printer.line(format_args!("hash = \"{hash}\""))?;
    for (field, cap) in [("daily_cap", cap), ("max_cost", request_cap)] {
        if let Some(cap) = cap {
            printer.line(format_args!("{field} = \"{cap}\""))?;
        }
    }
    Ok(())
}
