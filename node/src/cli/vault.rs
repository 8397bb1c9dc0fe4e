//! `vault`: the deposit that providers are paid from.
//!
//! Owns: the layout. Must not: decide where coins go; the contract and the teller do.

use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::{Millis, NanoTon, Timestamp};

use super::output::{roughly, short, utc};
use super::{Context, ExitStatus, Failure, teller, unexpected, wallet};
use crate::control::{AllocationStatus, MoneyAnswer, MoneyRequest, VaultStatus};
use crate::vaults::percent;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the vaults of this node: the settings' own, and those of earlier settings.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a vault as the ledger has it, the settings' own by default.
    Show {
        /// Any vault's address.
        vault: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Open the vault with a deposit from the wallet; a consumer does so by itself for its first job.
    Open {
        /// How much, with its unit; the setting `vault_deposit` by default.
        amount: Option<NanoTon>,
    },
    /// Pay into the vault from the wallet. Interrupted and given again, it pays once.
    TopUp {
        /// How much, with its unit: `1 TON`.
        amount: NanoTon,
    },
    /// Send free coins to the vault's owner; with no allocation left, everything.
    Withdraw {
        /// How much, with its unit; everything that is free by default.
        amount: Option<NanoTon>,
        /// A vault of earlier settings.
        #[arg(long, value_name = "ADDRESS")]
        vault: Option<String>,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { json } => {
            let vaults = vaults(context, MoneyRequest::Vaults)?;
            if json { context.printer.json(&vaults) } else { table(context, &vaults) }
        }
        Command::Show { vault, json } => {
            let vaults = match address(context, vault)? {
                Some(address) => vaults(context, MoneyRequest::Vault { address })?,
                None => vaults(context, MoneyRequest::Vaults)?,
            };
            let Some(vault) = vaults.first() else {
                return Err(Failure::new(anyhow::anyhow!("there is no vault at this address")));
            };
            if json { context.printer.json(vault) } else { print(context, vault) }
        }
        Command::Open { amount } => {
            let deposit = context.load_unchecked()?.vault_deposit;
            let amount = amount.unwrap_or(deposit);
            // What cannot be changed any more afterwards is said before.
            let before = vaults(context, MoneyRequest::Vaults)?;
            for vault in before.iter().filter(|it| it.current && !it.open) {
                context
                    .printer
                    .note(format_args!("opening a vault; network fee: {}\n", fee(vault)));
            }
            let vaults = vaults(context, MoneyRequest::VaultOpen { amount })?;
            vaults.iter().try_for_each(|vault| print(context, vault))
        }
        Command::TopUp { amount } => {
            let payment = wallet::until_known(context, &MoneyRequest::VaultTopUp { amount })?;
            wallet::report(context, &payment, false)
        }
        Command::Withdraw { amount, vault } => {
            let vault = address(context, vault)?;
            let vaults = vaults(context, MoneyRequest::VaultWithdraw { vault, amount })?;
            vaults.iter().try_for_each(|vault| print(context, vault))
        }
    }
}

pub(super) fn vaults(
    context: &Context,
    request: MoneyRequest,
) -> Result<Vec<VaultStatus>, Failure> {
    let MoneyAnswer::Vaults(vaults) = teller::ask(context, request)? else {
        return Err(unexpected());
    };
    Ok(vaults)
}

fn address(context: &Context, text: Option<String>) -> Result<Option<TonAddress>, Failure> {
    let network = context.load_unchecked()?.network;
    let parse = |text: String| cocoon_ledger::address::parse(&text, network);
    let address = text.map(parse).transpose();
    address.map_err(|error| Failure::new(error).with_status(ExitStatus::Usage))
}

fn table(context: &Context, vaults: &[VaultStatus]) -> Result<(), Failure> {
    let row = |vault: &VaultStatus| {
        let state = match (vault.open, vault.current) {
            (false, _) => "not open",
            (true, true) => "in use",
            (true, false) => "earlier settings",
        };
        vec![
            vault.address.to_string(),
            state.to_owned(),
            vault.balance.to_string(),
            vault.free.to_string(),
        ]
    };
    let rows: Vec<_> = vaults.iter().map(row).collect();
    context.printer.table("vaults", &["VAULT", "STATE", "BALANCE", "FREE"], &rows)
}

fn print(context: &Context, vault: &VaultStatus) -> Result<(), Failure> {
    let printer = &context.printer;
    let delay = roughly(Millis::from_secs(u64::from(vault.release_delay_seconds)));
    printer.line(format_args!("vault        {}", vault.address))?;
    printer.line(format_args!("owner        {}", vault.owner))?;
    printer
        .line(format_args!("delay        {delay} from asking for a release to taking it back"))?;
    printer.line(format_args!("fee          {}", fee(vault)))?;
    if !vault.open {
        return printer.line("state        not open yet");
    }
    let unverified = if vault.verified { "" } else { " (unverified: a server says so)" };
    printer.line(format_args!("balance      {}{unverified}", vault.balance))?;
    printer.line(format_args!("reserved     {}", vault.reserved))?;
    printer.line(format_args!("free         {}", vault.free))?;
    let row = |one: &AllocationStatus| {
        vec![
            short(one.provider),
            one.epoch.to_string(),
            one.limit.to_string(),
            one.paid.to_string(),
            release(one.unlock_at, vault.as_of),
        ]
    };
    let rows: Vec<_> = vault.allocations.iter().map(row).collect();
    printer.table("allocations", &["PROVIDER", "EPOCH", "LIMIT", "PAID", "RELEASE"], &rows)
}

/// The network's fee in words.
fn fee(vault: &VaultStatus) -> String {
    match vault.fee_basis_points {
        0 => "none".to_owned(),
        fee => format!("{} of what providers are paid, to {}", percent(fee), vault.treasury),
    }
}

/// When an allocation can be taken back, in words.
pub(super) fn release(unlock_at: Option<Timestamp>, now: Timestamp) -> String {
    match unlock_at {
        None => "not asked for".to_owned(),
        Some(at) if at <= now => format!("open since {}", utc(at)),
        Some(at) => format!("at {}, in {}", utc(at), roughly(at.since(now))),
    }
}
