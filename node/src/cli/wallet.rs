//! `wallet`: the node's key to its coins.
//!
//! Owns: the layout, and reading words from a file. Must not: show a secret without being asked.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use cocoon_ledger::wallet::{Mnemonic, Wallet};
use cocoon_protocol::identity::Network;
use cocoon_protocol::units::NanoTon;
use zeroize::Zeroizing;

use super::output::word;
use super::{Context, ExitStatus, Failure, unexpected};
use crate::control::{Answer, Client, Request, WalletStatus};
use crate::keystore::KeystoreError;
use crate::run::Foundation;

/// Largest file with words: 24 words of 8 letters, with room for line breaks and a note.
const WORDS_FILE_BYTES: u64 = 4_096;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a wallet and print its 24 words, once. The node must not be running.
    ///
    /// A node makes one by itself when it first needs it; this is for those who want the words on
    /// paper before there is money, or have words already.
    New {
        /// Take the words from this file instead of making new ones.
        #[arg(long, value_name = "FILE")]
        words: Option<PathBuf>,
    },
    /// Show the wallet's address and, when the node runs, what it and its vault hold.
    Show {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Print the 24 words too. The node must not be running.
        #[arg(long, conflicts_with = "json")]
        words: bool,
    },
    /// Take coins from a devnet's faucet. The node must be running.
    Fund {
        /// How many, with their unit: `5 TON`.
        #[arg(default_value = "10 TON")]
        amount: NanoTon,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::New { words } => new(context, words),
        Command::Show { words: true, .. } => {
            let (foundation, network) = open(context)?;
            let kept = kept(&foundation, network)?;
            print(context, &offline(&kept, network)?)?;
            context.printer.line(format_args!("words    {}", kept.phrase()))
        }
        Command::Show { json, words: false } => {
            let wallet = show(context)?;
            if json { context.printer.json(&wallet) } else { print(context, &wallet) }
        }
        Command::Fund { amount } => {
            let answer = context.ask(Request::WalletFund { amount })?;
            let Answer::Wallet(wallet) = answer else { return Err(unexpected()) };
            print(context, &wallet)
        }
    }
}

/// Opens the store of a node that does not run.
fn open(context: &Context) -> Result<(Foundation, Network), Failure> {
    let config = context.load_unchecked()?;
    Ok((Foundation::open(&config)?, config.network))
}

fn new(context: &Context, file: Option<PathBuf>) -> Result<(), Failure> {
    let made = match &file {
        Some(path) => read_words(path)?,
        None => Mnemonic::generate().map_err(Failure::new)?,
    };
    let (foundation, network) = open(context)?;
    foundation.keystore.keep_words(network, &made).map_err(|error| {
        let exists = matches!(error, KeystoreError::Exists);
        let hint = exists.then_some("`cocoon-node wallet show --words` prints its words");
        Failure::new(error).with_hint(hint)
    })?;
    print(context, &offline(&made, network)?)?;
    if file.is_none() {
        context.printer.line(format_args!("words    {}", made.phrase()))?;
        context.printer.note("\nWrite the words down: whoever has them has the coins.\n");
    }
    Ok(())
}

/// From the running node when there is one, from the store otherwise.
fn show(context: &Context) -> Result<WalletStatus, Failure> {
    if let Some(folder) = context.existing_folder()?
        && let Ok(node) = Client::connect(&folder.control_socket())
    {
        let answer = node.ask(Request::WalletShow)?;
        let Answer::Wallet(wallet) = answer else { return Err(unexpected()) };
        return Ok(wallet);
    }
    let (foundation, network) = open(context)?;
    offline(&kept(&foundation, network)?, network)
}

fn kept(foundation: &Foundation, network: Network) -> Result<Mnemonic, Failure> {
    foundation.keystore.words(network)?.ok_or_else(|| {
        Failure::new(anyhow!("there is no wallet for {} yet", word(&network)))
            .with_hint(Some("`cocoon-node wallet new` makes one"))
    })
}

fn offline(words: &Mnemonic, network: Network) -> Result<WalletStatus, Failure> {
    let wallet = Wallet::new(words.to_key(), network).map_err(Failure::new)?;
    let address = wallet.address();
    Ok(WalletStatus { network, address, balance: None, vault: None, vault_balance: None })
}

fn read_words(path: &PathBuf) -> Result<Mnemonic, Failure> {
    let about = || format!("cannot read {}", path.display());
    let mut text = Zeroizing::new(String::new());
    let read =
        fs::File::open(path).and_then(|file| file.take(WORDS_FILE_BYTES).read_to_string(&mut text));
    read.with_context(about).map_err(Failure::new)?;
    Mnemonic::parse(&text).map_err(|error| Failure::new(error).with_status(ExitStatus::Invalid))
}

fn print(context: &Context, wallet: &WalletStatus) -> Result<(), Failure> {
    let printer = &context.printer;
    printer.line(format_args!("network  {}", word(&wallet.network)))?;
    printer.line(format_args!("wallet   {}", wallet.address))?;
    if let Some(balance) = wallet.balance {
        printer.line(format_args!("balance  {balance}"))?;
    }
    if let Some(vault) = wallet.vault {
        printer.line(format_args!("vault    {vault}"))?;
    }
    if let Some(deposit) = wallet.vault_balance {
        printer.line(format_args!("deposit  {deposit}"))?;
    }
    Ok(())
}
