//! The command line: what can be typed, and which file does it.
//!
//! Owns: the commands' names and arguments, and the only reading of the environment.
//! Must not: do a command's work. One file a command.

mod accounts;
mod channel;
mod completions;
mod config;
mod engine_worker;
mod exit;
mod failure;
mod flags;
mod key;
mod models;
mod output;
mod proof;
mod receipt;
mod registry;
mod run;
mod status;
mod stop;
mod surroundings;
mod tee;
mod teller;
mod vault;
mod wallet;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use exit::ExitStatus;
pub use failure::Failure;

use crate::config::{Config, Layers, Loaded};
use crate::control::{Answer, Client, ControlError, Request};
use crate::data_folder::DataFolder;
use flags::SettingFlags;
use output::Printer;

/// Environment variables of ours that are not settings.
const OTHER_VARIABLES: [&str; 1] = [CONFIG_VARIABLE];
/// Names the configuration file when no flag does.
const CONFIG_VARIABLE: &str = "COCOON_CONFIG";

/// A peer of the Cocoon network: rent out a GPU for AI inference, or use one, paid on TON.
///
/// Without a command it runs a node. Every setting can be given as a flag, as an environment
/// variable, or in a file named by `--config`; a flag beats a variable, a variable beats the file.
#[derive(Debug, Parser)]
#[command(name = "cocoon-node", version, max_term_width = 100)]
struct Cli {
    /// Read settings from this TOML file.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Node")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every setting, its value and where the value came from.
    #[command(subcommand)]
    Config(config::Command),
    /// Show a running node's peers, offers, channels and jobs.
    Status(status::Arguments),
    /// Ask a running node to finish its jobs and end.
    Stop,
    /// Keys and coins.
    #[command(subcommand)]
    Wallet(wallet::Command),
    /// The deposit that providers are paid from.
    #[command(subcommand)]
    Vault(vault::Command),
    /// API keys for the endpoint.
    #[command(subcommand)]
    Key(key::Command),
    /// Model files that this machine knows by name.
    #[command(subcommand)]
    Models(models::Command),
    /// Signed receipts for answers.
    #[command(subcommand)]
    Receipt(receipt::Command),
    /// Payment channels.
    #[command(subcommand)]
    Channel(channel::Command),
    /// Settle for providers that cannot, before their consumers take the money back.
    Watch(watch::Arguments),
    /// The network's fee, models and measurements, as a registry on the ledger has them.
    #[command(subcommand)]
    Registry(registry::Command),
    /// What hardware can prove, what a policy accepts, and whether evidence holds.
    #[command(subcommand)]
    Tee(tee::Command),
    /// What this node has earned as a provider.
    Earnings(accounts::Arguments),
    /// What this node has spent as a consumer.
    Spend(accounts::Arguments),
    /// Print a script that completes this command line in a shell.
    Completions(completions::Arguments),
    /// Run llama.cpp for a node that started this process.
    #[command(hide = true)]
    EngineWorker,
}

/// What every command is given.
#[derive(Debug)]
struct Context {
    printer: Printer,
    layers: Layers,
}

impl Context {
    /// The configuration, checked.
    fn load(&self) -> Result<Loaded, Failure> {
        Ok(Loaded::new(&self.layers, &surroundings::surroundings())?)
    }

    /// The configuration for a command that does not run a node, so that other settings may be
    /// unfinished.
    fn load_unchecked(&self) -> Result<Config, Failure> {
        Ok(Loaded::unchecked(&self.layers, &surroundings::surroundings())?.config)
    }

    /// The same, with where each setting came from.
    fn load_with_origins(&self) -> Result<Loaded, Failure> {
        Ok(Loaded::unchecked(&self.layers, &surroundings::surroundings())?)
    }

    /// The data folder, made if it is not there.
    fn folder(&self) -> Result<DataFolder, Failure> {
        Ok(DataFolder::open(&self.load_unchecked()?.data_dir)?)
    }

    /// The data folder, for a question that is no reason to make one.
    fn existing_folder(&self) -> Result<Option<DataFolder>, Failure> {
        let path = self.load_unchecked()?.data_dir;
        if path.exists() { Ok(Some(DataFolder::open(&path)?)) } else { Ok(None) }
    }

    /// Asks the running node.
    fn ask(&self, request: Request) -> Result<Answer, Failure> {
        let folder = self.existing_folder()?.ok_or(ControlError::NotRunning)?;
        Ok(Client::connect(&folder.control_socket())?.ask(request)?)
    }
}

/// An answer of another kind than the request calls for.
fn unexpected() -> Failure {
    ControlError::Malformed.into()
}

/// The whole program: reads the process's arguments and environment, and says how it ended.
pub fn main() -> ExitCode {
    dispatch(std::env::args_os())
}

/// The command line as clap has it.
fn command() -> clap::Command {
    flags::hide_in_subcommands(Cli::command())
}

fn dispatch(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let printer = Printer;
    let parsed = command()
        .try_get_matches_from(arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, on standard output; the rest are errors. A closed
            // stream leaves nobody to tell.
            let _ = error.print();
            let wrong = error.use_stderr();
            return if wrong { ExitStatus::Usage } else { ExitStatus::Success }.into();
        }
    };
    if matches!(cli.command, Some(Command::EngineWorker)) {
        return engine_worker::run();
    }
    let status = match execute(cli) {
        Ok(()) => ExitStatus::Success,
        Err(failure) if failure.is_broken_pipe() => ExitStatus::Success,
        Err(failure) => {
            printer.note(failure.describe());
            failure.status()
        }
    };
    status.into()
}

fn execute(cli: Cli) -> Result<(), Failure> {
    let environment = surroundings::environment()?;
    let file = cli.config.or_else(|| environment.get(CONFIG_VARIABLE).map(PathBuf::from));
    let layers = Layers { file, environment, flags: cli.settings.given };
    let context = Context { printer: Printer, layers };
    surroundings::warn_of_unknown_variables(&context);
    match cli.command {
        None => run::run(&context),
        // Taken out before anything was read or printed.
        Some(Command::EngineWorker) => Ok(()),
        Some(Command::Config(command)) => config::run(&context, command),
        Some(Command::Status(arguments)) => status::run(&context, arguments),
        Some(Command::Stop) => stop::run(&context),
        Some(Command::Wallet(command)) => wallet::run(&context, command),
        Some(Command::Vault(command)) => vault::run(&context, command),
        Some(Command::Earnings(arguments)) => accounts::run(&context, true, &arguments),
        Some(Command::Spend(arguments)) => accounts::run(&context, false, &arguments),
        Some(Command::Key(command)) => key::run(&context, command),
        Some(Command::Models(command)) => models::run(&context, command),
        Some(Command::Receipt(command)) => receipt::run(&context, command),
        Some(Command::Channel(command)) => channel::run(&context, command),
        Some(Command::Watch(arguments)) => watch::run(&context, arguments),
        Some(Command::Registry(command)) => registry::run(&context, command),
        Some(Command::Tee(command)) => tee::run(&context, command),
        Some(Command::Completions(arguments)) => completions::run(&context, arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    /// clap keeps both under one name and hands out the one that was asked for last.
    #[test]
    fn no_command_s_argument_has_a_setting_s_name() {
        fn look(command: &clap::Command) {
            for argument in command.get_arguments().filter(|it| !it.is_global_set()) {
                let id = argument.get_id().as_str();
                let setting = crate::config::SETTINGS.iter().any(|row| row.key == id);
                assert!(!setting, "`{}` has an argument `{id}`", command.get_name());
            }
            command.get_subcommands().for_each(look);
        }
        look(&command());
    }

    fn flags_of(line: &str) -> SettingFlags {
        let matches = command().try_get_matches_from(line.split(' ')).unwrap();
        Cli::from_arg_matches(&matches).unwrap().settings
    }

    #[test]
    fn a_setting_may_stand_before_or_after_the_command() {
        let before = flags_of("cocoon-node --provide --engine-slots 3 config print").given;
        let after = flags_of("cocoon-node config print --provide --engine-slots 3").given;
        assert_eq!(before, after);
        assert_eq!(before.len(), 2);
    }

    #[test]
    fn switches_are_bare_or_spelt_out_and_lists_repeat() {
        use crate::config::Raw;
        let one = |text: &str| Raw::Many(vec![text.to_owned()]);
        assert_eq!(flags_of("cocoon-node --provide").given["provide"], one("true"));
        assert_eq!(flags_of("cocoon-node --provide=false").given["provide"], one("false"));
        let listen = flags_of("cocoon-node --listen a --listen b,c").given.remove("listen");
        assert_eq!(listen, Some(Raw::Many(vec!["a".into(), "b,c".into()])));
    }
}
