//! `wallet`: the node's key to its coins, and what it does with them.
//!
//! Owns: the layout, asking before coins leave, and reading words.
//! Must not: show a secret without being asked, or pay twice for one command.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use cocoon_ledger::address::{FriendlyAddress, ParseAddressError, parse};
use cocoon_ledger::wallet::{Mnemonic, Wallet};
use cocoon_protocol::identity::{Network, TonAddress};
use cocoon_protocol::units::NanoTon;
use zeroize::Zeroizing;

use super::output::{utc, word};
use super::{Context, ExitStatus, Failure, teller, unexpected};
use crate::config::Config;
use crate::control::{
    AccountStatus, Answer, Client, HistoryLine, HistoryPage, MoneyAnswer, MoneyRequest, Moved,
    Payment, PaymentState, Request, WalletStatus,
};
use crate::keystore::{KeystoreError, Protected, Unlock};
use crate::run::Foundation;

/// Largest text with words: 24 words of 8 letters, with room for line breaks and a note.
const WORDS_BYTES: u64 = 4_096;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a wallet and print its 24 words, once. The node must not be running.
    ///
    /// A node makes one by itself when it first needs it; this is for those who want the words on
    /// paper before there is money.
    #[command(visible_alias = "new")]
    Create,
    /// Take 24 words from a file, a pipe or the keyboard. The node must not be running.
    Import {
        /// File with the words; standard input by default.
        file: Option<PathBuf>,
    },
    /// Show the wallet's address in every form and, when the node runs, what it and its vault hold.
    Show {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Print the 24 words too. The node must not be running.
        #[arg(long, conflicts_with = "json")]
        words: bool,
    },
    /// Show what the wallet, or any account, holds on the ledger.
    Balance {
        /// Another account than the wallet's own.
        address: Option<String>,
        /// The same key's older wallet (version 4, release 2), which is only looked at here.
        #[arg(long, conflicts_with = "address")]
        v4: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Pay somebody, and wait until it is on the ledger.
    ///
    /// Interrupted and given again, it finishes what it began and pays once.
    Send {
        /// Whom: `UQ…`, `EQ…` or `0:…`.
        to: String,
        /// How much, with its unit: `1.5 TON`.
        amount: NanoTon,
        /// A text that the receiver, and everybody else, can read.
        #[arg(long, default_value = "")]
        comment: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the transactions of the wallet, or of any account, the newest first.
    History {
        /// Another account than the wallet's own.
        address: Option<String>,
        /// The same key's older wallet (version 4, release 2).
        #[arg(long, conflicts_with = "address")]
        v4: bool,
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: u16,
        /// Only those before this one, for the next page.
        #[arg(long, value_name = "LT:HASH")]
        before: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take coins from a devnet's faucet. The node must be running.
    Fund {
        /// How many, with their unit: `5 TON`.
        #[arg(default_value = "10 TON")]
        amount: NanoTon,
    },
    /// Change what the keystore is sealed with. The node must not be running.
    Protect {
        /// With what.
        with: ProtectWith,
        /// File with the new passphrase; it is asked for by default.
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum ProtectWith {
    /// A passphrase: without it the node does not start.
    Passphrase,
    /// The key in the file that `--key-file` names.
    KeyFile,
    /// Nothing: whoever reads the folder has the coins.
    Nothing,
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Create => create(context),
        Command::Import { file } => import(context, file),
        Command::Show { words: true, .. } => {
            let (foundation, config) = open(context)?;
            let kept = kept(&foundation, config.network)?;
            print(context, &offline(&kept, config.network)?)?;
            context.printer.line(format_args!("words        {}", kept.phrase()))
        }
        Command::Show { json, words: false } => {
            let wallet = show(context)?;
            if json { context.printer.json(&wallet) } else { print(context, &wallet) }
        }
        Command::Balance { address, v4, json } => balance(context, address, v4, json),
        Command::Send { to, amount, comment, yes, json } => {
            let to = destination(&to, context.load_unchecked()?.network)?;
            send(context, &to, amount, comment, Say { yes, json })
        }
        Command::History { address, v4, limit, before, json } => {
            let address = account(context, address, v4)?;
            history(context, address, limit, before, json)
        }
        Command::Fund { amount } => {
            let answer = context.ask(Request::WalletFund { amount })?;
            let Answer::Wallet(wallet) = answer else { return Err(unexpected()) };
            print(context, &wallet)
        }
        Command::Protect { with, new_passphrase_file } => {
            protect(context, with, new_passphrase_file)
        }
    }
}

/// Opens the store of a node that does not run.
fn open(context: &Context) -> Result<(Foundation, Config), Failure> {
    let config = context.load_unchecked()?;
    Ok((Foundation::open(&config)?, config))
}

fn create(context: &Context) -> Result<(), Failure> {
    let made = Mnemonic::generate().map_err(Failure::new)?;
    keep(context, &made)?;
    context.printer.line(format_args!("words        {}", made.phrase()))?;
    context.printer.note("\nWrite the words down: whoever has them has the coins.\n");
    Ok(())
}

fn import(context: &Context, file: Option<PathBuf>) -> Result<(), Failure> {
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(WORDS_BYTES).unwrap_or(0)));
    match file {
        Some(path) => {
            let about = || format!("cannot read {}", path.display());
            let file = fs::File::open(&path);
            let read = file.and_then(|file| file.take(WORDS_BYTES).read_to_string(&mut text));
            read.with_context(about).map_err(Failure::new)?;
        }
        None => {
            if io::stdin().is_terminal() {
                context.printer.note("The 24 words, on one line or several, then an empty line:\n");
            }
            let mut lines = io::stdin().lock().take(WORDS_BYTES);
            // An empty line ends it at the keyboard; a pipe ends by itself.
            while lines.read_line(&mut text)? > 0 && !text.ends_with("\n\n") {}
        }
    }
    let words = Mnemonic::parse(&text);
    let words = words.map_err(|error| Failure::new(error).with_status(ExitStatus::Invalid))?;
    keep(context, &words)
}

fn keep(context: &Context, words: &Mnemonic) -> Result<(), Failure> {
    let (foundation, config) = open(context)?;
    foundation.keystore.keep_words(config.network, words).map_err(|error| {
        let exists = matches!(error, KeystoreError::Exists);
        let hint = exists.then_some("`cocoon-node wallet show --words` prints its words");
        Failure::new(error).with_hint(hint)
    })?;
    print(context, &offline(words, config.network)?)
}

/// From the running node when there is one, from the keystore otherwise.
fn show(context: &Context) -> Result<WalletStatus, Failure> {
    if let Some(folder) = context.existing_folder()?
        && let Ok(node) = Client::connect(&folder.control_socket())
    {
        let answer = node.ask(Request::WalletShow)?;
        let Answer::Wallet(wallet) = answer else { return Err(unexpected()) };
        return Ok(wallet);
    }
    let (foundation, config) = open(context)?;
    offline(&kept(&foundation, config.network)?, config.network)
}

pub(super) fn kept(foundation: &Foundation, network: Network) -> Result<Mnemonic, Failure> {
    foundation.keystore.words(network)?.ok_or_else(|| {
        Failure::new(anyhow!("there is no wallet for {} yet", word(&network)))
            .with_hint(Some("`cocoon-node wallet create` makes one"))
    })
}

fn offline(words: &Mnemonic, network: Network) -> Result<WalletStatus, Failure> {
    let wallet = Wallet::new(words.to_key(), network).map_err(Failure::new)?;
    let address = wallet.address();
    Ok(WalletStatus { network, address, balance: None, vault: None, vault_balance: None })
}

/// The account that a command is about: the wallet's own is `None`.
fn account(
    context: &Context,
    address: Option<String>,
    v4: bool,
) -> Result<Option<TonAddress>, Failure> {
    if v4 {
        let own = teller::ask(context, MoneyRequest::Account { address: None })?;
        let MoneyAnswer::Account(AccountStatus { version_4, .. }) = own else {
            return Err(unexpected());
        };
        return Ok(version_4);
    }
    let network = context.load_unchecked()?.network;
    address.map(|text| parse(&text, network).map_err(not_an_address)).transpose()
}

fn not_an_address(error: ParseAddressError) -> Failure {
    Failure::new(error).with_status(ExitStatus::Usage)
}

fn balance(
    context: &Context,
    address: Option<String>,
    v4: bool,
    json: bool,
) -> Result<(), Failure> {
    let address = account(context, address, v4)?;
    let MoneyAnswer::Account(account) = teller::ask(context, MoneyRequest::Account { address })?
    else {
        return Err(unexpected());
    };
    if json {
        return context.printer.json(&account);
    }
    let printer = &context.printer;
    let unverified = if account.verified { "" } else { " (unverified: a server says so)" };
    printer.line(format_args!("account      {}", account.address))?;
    printer.line(format_args!("balance      {}{unverified}", account.balance))
}

/// Where a payment goes.
struct Destination {
    address: TonAddress,
    /// What the form of the address says about returning the coins; the raw form says nothing.
    bounceable: Option<bool>,
}

fn destination(text: &str, network: Network) -> Result<Destination, Failure> {
    let address = parse(text, network).map_err(not_an_address)?;
    let friendly = text.parse::<FriendlyAddress>().ok();
    Ok(Destination { address, bounceable: friendly.map(|it| it.bounceable) })
}

/// How a command talks to its user.
#[derive(Clone, Copy)]
struct Say {
    yes: bool,
    json: bool,
}

fn send(
    context: &Context,
    to: &Destination,
    amount: NanoTon,
    comment: String,
    say: Say,
) -> Result<(), Failure> {
    let ask = |address| -> Result<AccountStatus, Failure> {
        let answer = teller::ask(context, MoneyRequest::Account { address })?;
        let MoneyAnswer::Account(account) = answer else { return Err(unexpected()) };
        Ok(account)
    };
    let (own, theirs) = (ask(None)?, ask(Some(to.address))?);
    if amount == NanoTon::ZERO {
        return Err(Failure::new(anyhow!("0 TON is no payment")).with_status(ExitStatus::Usage));
    }
    let printer = &context.printer;
    if !say.yes {
        printer.note(format_args!(
            "pay          {amount}\nto           {}\nfrom         {} ({})\nnetwork      {}\n",
            to.address,
            own.address,
            own.balance,
            word(&own.network)
        ));
        if !comment.is_empty() {
            printer.note(format_args!("comment      {comment}\n"));
        }
        if !theirs.active {
            printer
                .note("             no contract is at this address: make sure that it is right\n");
        }
        confirm(context)?;
    }
    // An account without a contract keeps what it gets: there is nothing that could refuse it.
    let bounce = theirs.active && to.bounceable != Some(false);
    let request = MoneyRequest::Send { to: to.address, amount, comment, bounce };
    let payment = until_known(context, &request)?;
    report(context, &payment, say.json)
}

fn confirm(context: &Context) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        let error = anyhow!("there is no terminal to confirm the payment at");
        return Err(Failure::new(error).with_hint(Some("`--yes` pays without asking")));
    }
    context.printer.note("Pay? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().take(16).read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(anyhow!("nothing was paid")))
    }
}

/// Asks until it is known what became of a payment. Its last second ends the loop.
pub(super) fn until_known(context: &Context, request: &MoneyRequest) -> Result<Payment, Failure> {
    let mut asked_before = None;
    loop {
        let MoneyAnswer::Payment(mut payment) = teller::ask(context, request.clone())? else {
            return Err(unexpected());
        };
        // Only the first answer says whether an earlier command had asked already.
        payment.asked_before = *asked_before.get_or_insert(payment.asked_before);
        if payment.state != PaymentState::Pending {
            return Ok(payment);
        }
        context.printer.note("waiting for the ledger; interrupted, give the same command again\n");
    }
}

/// Tells how a payment ended, and only then lets the node forget it.
pub(super) fn report(context: &Context, payment: &Payment, json: bool) -> Result<(), Failure> {
    let printer = &context.printer;
    if json {
        printer.json(payment)?;
    } else if let PaymentState::Executed { at, fees } = &payment.state {
        printer.line(format_args!("paid         {}", payment.amount))?;
        printer.line(format_args!("to           {}", payment.to))?;
        printer.line(format_args!("fees         {fees}"))?;
        printer.line(format_args!("at           {}", utc(*at)))?;
        printer.line(format_args!("message      {}", payment.hash))?;
    }
    if payment.asked_before {
        printer.note("an earlier command had asked for this payment: it was made once\n");
    }
    teller::ask(context, MoneyRequest::Acknowledge { hash: payment.hash.clone() })?;
    match &payment.state {
        PaymentState::Executed { .. } => Ok(()),
        PaymentState::Pending => Err(unexpected()),
        PaymentState::Failed { reason } => {
            Err(Failure::new(anyhow!("{reason}")).with_hint(Some("nothing was paid; try again")))
        }
    }
}

fn history(
    context: &Context,
    address: Option<TonAddress>,
    limit: u16,
    before: Option<String>,
    json: bool,
) -> Result<(), Failure> {
    let request = MoneyRequest::History { address, limit, before };
    let MoneyAnswer::History(page) = teller::ask(context, request)? else {
        return Err(unexpected());
    };
    if json {
        return context.printer.json(&page);
    }
    let HistoryPage { lines, more, .. } = &page;
    let rows: Vec<_> = lines.iter().flat_map(rows).collect();
    let columns = ["TIME", "", "AMOUNT", "FROM/TO", "FEES", "COMMENT"];
    context.printer.table("transactions", &columns, &rows)?;
    if let Some(last) = lines.last().filter(|_| *more) {
        context.printer.note(format_args!("older ones: --before {}\n", last.id));
    }
    Ok(())
}

/// A row for each amount that a transaction moved; one without any for its fees alone.
fn rows(line: &HistoryLine) -> Vec<Vec<String>> {
    let row = |what: &str, moved: Option<&Moved>, fees: String| {
        let failed = if line.failed { " (failed)" } else { "" };
        let bounced = moved.is_some_and(|moved| moved.bounced);
        let bounced = if bounced { " (came back)" } else { "" };
        vec![
            utc(line.at),
            format!("{what}{bounced}{failed}"),
            moved.map_or_else(|| "-".to_owned(), |moved| moved.amount.to_string()),
            moved.and_then(|moved| moved.peer).map_or_else(|| "-".to_owned(), |it| it.to_string()),
            fees,
            moved.and_then(|moved| moved.comment.as_deref()).map(harmless).unwrap_or_default(),
        ]
    };
    let mut moves: Vec<_> = line.received.iter().map(|moved| ("in", moved)).collect();
    moves.extend(line.sent.iter().map(|moved| ("out", moved)));
    if moves.is_empty() {
        return vec![row("none", None, line.fees.to_string())];
    }
    let fees = |place| if place == 0 { line.fees.to_string() } else { String::new() };
    let moves = moves.into_iter().enumerate();
    moves.map(|(place, (what, moved))| row(what, Some(moved), fees(place))).collect()
}

/// A stranger's text without what would move a terminal's cursor or turn its writing around.
pub(super) fn harmless(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).collect()
}

fn protect(
    context: &Context,
    with: ProtectWith,
    new_passphrase_file: Option<PathBuf>,
) -> Result<(), Failure> {
    let (foundation, config) = open(context)?;
    let keystore = &foundation.keystore;
    let settings = Unlock::from_config(&config);
    match with {
        ProtectWith::Passphrase => keystore.protect_by_passphrase(&Unlock {
            passphrase_file: new_passphrase_file,
            ask: settings.ask,
            ..Unlock::default()
        })?,
        ProtectWith::KeyFile => keystore.protect_by_key_file(&settings)?,
        ProtectWith::Nothing => keystore.unprotect()?,
    }
    let how = match keystore.protected() {
        Protected::No => "nothing",
        Protected::ByPassphrase => "a passphrase",
        Protected::ByKeyFile => "a key file",
    };
    context.printer.line(format_args!("the keystore is sealed with {how}"))
}

fn print(context: &Context, wallet: &WalletStatus) -> Result<(), Failure> {
    let printer = &context.printer;
    printer.line(format_args!("network      {}", word(&wallet.network)))?;
    forms(context, wallet.address, wallet.network)?;
    if let Some(balance) = wallet.balance {
        printer.line(format_args!("balance      {balance}"))?;
    }
    if let Some(vault) = wallet.vault {
        printer.line(format_args!("vault        {vault}"))?;
    }
    if let Some(deposit) = wallet.vault_balance {
        printer.line(format_args!("deposit      {deposit}"))?;
    }
    Ok(())
}

/// An address in every form that other programs want it in.
fn forms(context: &Context, address: TonAddress, network: Network) -> Result<(), Failure> {
    let printer = &context.printer;
    let test_only = network != Network::Mainnet;
    let form = |bounceable, test_only| FriendlyAddress { address, bounceable, test_only };
    printer.line(format_args!("wallet       {address}"))?;
    printer.line(format_args!("to fund      {}", form(false, test_only)))?;
    printer.line(format_args!("bounceable   {}", form(true, test_only)))
}
