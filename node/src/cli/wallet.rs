//! `wallet`: the node's key to its coins.
//!
//! Owns: the layout. Must not: show a secret that it was not asked for.

use cocoon_protocol::units::NanoTon;

use super::output::word;
use super::{Context, Failure, unexpected};
use crate::control::{Answer, Request, WalletStatus};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show the wallet's address and what it and its vault hold.
    Show {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take coins from a devnet's faucet.
    Fund {
        /// How many, with their unit: `5 TON`.
        #[arg(default_value = "10 TON")]
        amount: NanoTon,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Show { json } => {
            let wallet = ask(context, Request::WalletShow)?;
            if json {
                context.printer.json(&wallet)
            } else {
                print(context, &wallet)
            }
        }
        Command::Fund { amount } => print(context, &ask(context, Request::WalletFund { amount })?),
    }
}

fn ask(context: &Context, request: Request) -> Result<WalletStatus, Failure> {
    let Answer::Wallet(wallet) = context.ask(request)? else {
        return Err(unexpected());
    };
    Ok(wallet)
}

fn print(context: &Context, wallet: &WalletStatus) -> Result<(), Failure> {
    let amount = |amount: Option<NanoTon>| {
        amount.map_or_else(|| "unknown".to_owned(), |amount| amount.to_string())
    };
    let printer = &context.printer;
    printer.line(format_args!("network  {}", word(&wallet.network)))?;
    printer.line(format_args!("wallet   {}", wallet.address))?;
    printer.line(format_args!("balance  {}", amount(wallet.balance)))?;
    if let Some(vault) = wallet.vault {
        printer.line(format_args!("vault    {vault}"))?;
        printer.line(format_args!("deposit  {}", amount(wallet.vault_balance)))?;
    }
    Ok(())
}
