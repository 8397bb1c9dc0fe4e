//! `receipt`: signed receipts, and checking one without anybody's help.
//!
//! Owns: the file's two forms, and how texts are read from files.
//! Must not: keep a text for longer than the check takes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use cocoon_protocol::identity::ReceiptHash;
use cocoon_protocol::job::{Prompt, Role, Turn};
use cocoon_protocol::limits;
use cocoon_protocol::receipt::{Receipt, Salt, SignedReceipt};
use serde::Deserialize;

use super::output::{Printer, short, utc};
use super::proof::{self, Anchor, Checked, Format, Target};
use super::{Context, ExitStatus, Failure, unexpected};
use crate::control::{Answer, ReceiptFile, Request};

/// Receipts that are looked through for one that is named by its first digits.
const SEARCHED: u32 = 10_000;
/// Largest receipt file: its JSON form has about 1.1 kB.
const RECEIPT_FILE_BYTES: u64 = 65_536;
/// Largest file of proofs: some hundred thousand.
const EXPORT_BYTES: u64 = 256 << 20;
/// What every proof begins with.
const PROOF_BEGINS: &str = "{\"format\":";
/// Largest text file: a prompt of the largest size, escaped in JSON.
const TEXT_FILE_BYTES: u64 = 8 << 20;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the newest receipts of a running node.
    List {
        /// How many at most.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one receipt of a running node.
    Show {
        /// The receipt, or the first digits of it.
        receipt: String,
        /// Print the receipt as a file that `receipt verify` reads.
        #[arg(long)]
        json: bool,
        /// With `--json`: leave out the salt, which lets a reader check guesses of the texts.
        #[arg(long, requires = "json")]
        without_salt: bool,
    },
    /// Write a file that proves a receipt to anybody: signature, texts, and its place in the log
    /// whose root the vault stores.
    Prove {
        /// The receipt, or the first digits of it.
        receipt: String,
        #[command(flatten)]
        target: Target,
    },
    /// Write all receipts of a running node: proofs, a line each, or a table.
    Export {
        /// How it is written.
        #[arg(long, value_enum, default_value = "jsonl")]
        format: Format,
        #[command(flatten)]
        target: Target,
    },
    /// Check a receipt or a proof: its signature, its numbers, its place in the log and, when texts
    /// are given, its commitments.
    ///
    /// Needs no node and no network; with `--ledger URL` the root in a proof is compared with the one
    /// that the vault stores. Exit code 3: it is not valid; 1: the ledger does not bear it out.
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// A proof from `receipt prove`, several from `receipt export`, the JSON from
    /// `receipt show --json`, or the signed bytes.
    file: PathBuf,
    /// File with the prompt: the JSON request with its `messages`, or the plain text.
    #[arg(long = "prompt", alias = "prompt-file", value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// File with the completion's exact text.
    #[arg(long = "completion", alias = "completion-file", value_name = "FILE")]
    completion_file: Option<PathBuf>,
    /// Key of the commitments, 64 hexadecimal digits, when the file does not hold it.
    #[arg(long, value_name = "DIGITS")]
    salt: Option<String>,
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { limit, json } => list(context, limit, json),
        Command::Show { receipt, json, without_salt } => {
            let mut file = find(context, &receipt)?;
            if !json {
                let signed = signed(&file).map_err(Failure::new)?;
                return print(&context.printer, &signed);
            }
            if without_salt {
                file.salt = None;
            }
            context.printer.json(&file)
        }
        Command::Prove { receipt, target } => {
            let receipt = find(context, &receipt)?.receipt;
            proof::prove(context, receipt, &target)
        }
        Command::Export { format, target } => proof::export(context, format, &target),
        Command::Verify(arguments) => {
            let bytes = read_file(&arguments.file, EXPORT_BYTES).map_err(Failure::new)?;
            match String::from_utf8(bytes) {
                Ok(text) if text.starts_with(PROOF_BEGINS) => {
                    verify_proofs(context, &arguments, &text)
                }
                Ok(_) | Err(_) => verify(&context.printer, &arguments),
            }
        }
    }
}

fn receipts(context: &Context, limit: u32) -> Result<Vec<ReceiptFile>, Failure> {
    let Answer::Receipts(receipts) = context.ask(Request::ReceiptList { limit })? else {
        return Err(unexpected());
    };
    Ok(receipts)
}

fn list(context: &Context, limit: u32, json: bool) -> Result<(), Failure> {
    let receipts = receipts(context, limit)?;
    if json {
        return context.printer.json(&receipts);
    }
    let row = |file: &ReceiptFile| {
        let receipt = signed(file).and_then(|signed| Ok(Receipt::decode(&signed.bytes)?));
        let Ok(receipt) = receipt else {
            return vec![short(file.receipt), "unreadable".into()];
        };
        let role = match file.provided {
            Some(true) => "given",
            Some(false) => "taken",
            None => "-",
        };
        vec![
            short(file.receipt),
            role.to_owned(),
            utc(receipt.ended),
            short(receipt.provider),
            format!("{} + {} tokens", receipt.usage.prompt, receipt.usage.completion),
            receipt.price.to_string(),
            receipt.finish.as_str().to_owned(),
        ]
    };
    let rows: Vec<_> = receipts.iter().map(row).collect();
    let columns = ["RECEIPT", "ROLE", "ENDED", "PROVIDER", "USAGE", "PRICE", "END"];
    context.printer.table("receipts", &columns, &rows)
}

/// The one receipt whose name begins with `digits`.
fn find(context: &Context, digits: &str) -> Result<ReceiptFile, Failure> {
    if let Some(receipt) = ReceiptHash::from_hex(digits) {
        let Answer::Receipt(file) = context.ask(Request::ReceiptShow { receipt })? else {
            return Err(unexpected());
        };
        return Ok(file);
    }
    let mut found = receipts(context, SEARCHED)?
        .into_iter()
        .filter(|file| !digits.is_empty() && file.receipt.to_string().starts_with(digits));
    let problem = match (found.next(), found.next()) {
        (Some(file), None) => return Ok(file),
        (None, _) => "no receipt begins",
        (Some(_), Some(_)) => "several receipts begin",
    };
    Err(Failure::new(anyhow!("{problem} with `{digits}`"))
        .with_hint(Some("`cocoon-node receipt list` shows the receipts")))
}

fn signed(file: &ReceiptFile) -> anyhow::Result<SignedReceipt> {
    let bytes = hex::decode(&file.signed).map_err(|_| anyhow!("`signed` is not hexadecimal"))?;
    Ok(SignedReceipt::decode(&bytes)?)
}

fn verify_proofs(context: &Context, arguments: &Verify, text: &str) -> Result<(), Failure> {
    let printer = &context.printer;
    let checked = proof::check(context, &arguments.file, text)?;
    let gives_texts = arguments.prompt_file.is_some() || arguments.completion_file.is_some();
    match checked.as_slice() {
        [one] => {
            let salt = match (&arguments.salt, &one.shown.salt) {
                (Some(digits), _) => Some(read_salt(digits)?),
                (None, kept) => kept.clone(),
            };
            if gives_texts {
                let salt = salt.ok_or_else(no_salt)?;
                let receipt = one.shown.receipt.receipt();
                check_texts(receipt, &salt, arguments)?.map_err(invalid)?;
            }
            borne_out(one)?;
            printer.line("receipt: valid")?;
            print(printer, one.shown.receipt.signed())?;
            if let Some((root, place)) = &one.shown.log {
                let (number, size) = (place.index.saturating_add(1), place.size);
                let root = hex::encode(root);
                printer
                    .line(format_args!("log         receipt {number} of {size}, root {root}"))?;
            }
            printer.line(format_args!("ledger      {}", one.anchor.describe()))?;
            matches(printer, arguments)?;
        }
        many if gives_texts => {
            let problem = anyhow!("texts belong to one receipt; the file holds {}", many.len());
            return Err(Failure::new(problem).with_status(ExitStatus::Usage));
        }
        many => {
            many.iter().try_for_each(borne_out)?;
            printer.line(format_args!("receipts: {} valid", many.len()))?;
            if many.iter().all(|it| it.anchor != Anchor::NotAsked) {
                printer.line("ledger    all under a root that a vault stores")?;
            }
        }
    }
    Ok(())
}

/// Whether the ledger, where one was asked, stores the root of a proof that holds by itself.
fn borne_out(checked: &Checked) -> Result<(), Failure> {
    if !checked.anchor.is_missing() {
        return Ok(());
    }
    let (hash, what) = (checked.shown.receipt.hash(), checked.anchor.describe());
    Err(Failure::new(anyhow!("receipt {hash} holds, but the ledger does not bear it out: {what}")))
}

fn invalid(error: impl Into<anyhow::Error>) -> Failure {
    let error = error.into().context("receipt: NOT valid");
    Failure::new(error).with_status(ExitStatus::Invalid)
}

fn no_salt() -> Failure {
    Failure::new(anyhow!("the texts cannot be checked without the salt"))
        .with_status(ExitStatus::Usage)
        .with_hint(Some("give `--salt`, or a file from `receipt show --json`"))
}

fn matches(printer: &Printer, arguments: &Verify) -> Result<(), Failure> {
    let checked = |file: &Option<PathBuf>| {
        if file.is_some() { "matches" } else { "not given" }
    };
    printer.line(format_args!("prompt      {}", checked(&arguments.prompt_file)))?;
    printer.line(format_args!("completion  {}", checked(&arguments.completion_file)))
}

fn verify(printer: &Printer, arguments: &Verify) -> Result<(), Failure> {
    let (signed, salt_of_file) = read_receipt(&arguments.file)?;
    let verified = signed.verify().map_err(invalid)?;
    let salt = arguments.salt.as_ref().or(salt_of_file.as_ref());
    let texts = [&arguments.prompt_file, &arguments.completion_file];
    if texts.iter().any(|file| file.is_some()) {
        let salt = salt.ok_or_else(no_salt)?;
        let salt = read_salt(salt)?;
        check_texts(verified.receipt(), &salt, arguments)?.map_err(invalid)?;
    }
    printer.line("receipt: valid")?;
    print(printer, verified.signed())?;
    matches(printer, arguments)
}

fn print(printer: &Printer, signed: &SignedReceipt) -> Result<(), Failure> {
    let receipt = Receipt::decode(&signed.bytes).map_err(Failure::new)?;
    printer.line(format_args!("receipt     {}", signed.hash()))?;
    printer.line(format_args!("job         {}", receipt.job))?;
    printer.line(format_args!("provider    {}", receipt.provider))?;
    printer.line(format_args!("model       {}", receipt.model))?;
    printer.line(format_args!("tier        {}", receipt.tier))?;
    printer.line(format_args!(
        "usage       {} prompt tokens, {} completion tokens",
        receipt.usage.prompt, receipt.usage.completion
    ))?;
    printer.line(format_args!("price       {} (network fee {})", receipt.price, receipt.fee))?;
    printer.line(format_args!("time        {} to {}", utc(receipt.started), utc(receipt.ended)))?;
    printer.line(format_args!("end         {}", receipt.finish.as_str()))?;
    printer.line(format_args!("vault       {}, epoch {}", receipt.vault, receipt.epoch))
}

/// Reads a file of bounded size; the error names the file and never its content.
fn read_file(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let about = || format!("cannot read {}", path.display());
    if fs::metadata(path).with_context(about)?.len() > limit {
        bail!("{} is larger than {limit} bytes", path.display());
    }
    fs::read(path).with_context(about)
}

fn read_receipt(path: &Path) -> Result<(SignedReceipt, Option<String>), Failure> {
    let bytes = read_file(path, RECEIPT_FILE_BYTES).map_err(Failure::new)?;
    let parsed = match serde_json::from_slice::<ReceiptFile>(&bytes) {
        Ok(file) => signed(&file).map(|signed| (signed, file.salt)),
        Err(_) => SignedReceipt::decode(&bytes).map(|signed| (signed, None)).map_err(Into::into),
    };
    parsed.map_err(|error| {
        let about = format!("{} is not a receipt", path.display());
        Failure::new(error.context(about)).with_status(ExitStatus::Invalid)
    })
}

fn read_salt(digits: &str) -> Result<Salt, Failure> {
    let mut salt = [0; 32];
    hex::decode_to_slice(digits.trim(), &mut salt).map_err(|_| {
        Failure::new(anyhow!("the salt is not 64 hexadecimal digits"))
            .with_status(ExitStatus::Usage)
    })?;
    Ok(Salt::from_bytes(salt))
}

/// The outer error: a text cannot be read. The inner one: it is not the receipt's.
fn check_texts(
    receipt: &Receipt,
    salt: &Salt,
    arguments: &Verify,
) -> Result<anyhow::Result<()>, Failure> {
    let text = |path: &Option<PathBuf>| -> anyhow::Result<Option<String>> {
        let Some(path) = path else { return Ok(None) };
        let bytes = read_file(path, TEXT_FILE_BYTES)?;
        let text = String::from_utf8(bytes);
        text.map(Some).map_err(|_| anyhow!("{} is not UTF-8", path.display()))
    };
    let prompt = text(&arguments.prompt_file).map_err(Failure::new)?;
    let completion = text(&arguments.completion_file).map_err(Failure::new)?;
    // A text that looks like a dialogue may still have been sent as plain text.
    let mut prompts = prompt.iter().flat_map(|text| [dialogue(text), plain(text)]).flatten();
    let mut result = receipt.check_texts(salt, prompts.next().as_ref(), completion.as_deref());
    for prompt in prompts {
        // The first reading's mismatch is the one to tell: it is the likelier reading.
        result = result.or_else(|first| {
            receipt.check_texts(salt, Some(&prompt), completion.as_deref()).map_err(|_| first)
        });
    }
    Ok(result.map_err(Into::into))
}

fn plain(text: &str) -> Option<Prompt> {
    Some(Prompt::Text(text.to_owned()))
}

/// A chat request, or its messages alone, as the endpoint takes them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Dialogue {
    Request { messages: Vec<Message> },
    Messages(Vec<Message>),
}

#[derive(Deserialize)]
struct Message {
    role: Speaker,
    content: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Speaker {
    #[serde(alias = "developer")]
    System,
    User,
    Assistant,
}

fn dialogue(text: &str) -> Option<Prompt> {
    let (Dialogue::Request { messages } | Dialogue::Messages(messages)) =
        serde_json::from_str(text).ok()?;
    if messages.len() > limits::PROMPT_TURNS {
        return None;
    }
    let turn = |message: Message| {
        let role = match message.role {
            Speaker::System => Role::System,
            Speaker::User => Role::User,
            Speaker::Assistant => Role::Assistant,
        };
        Turn { role, content: message.content }
    };
    Some(Prompt::Chat(messages.into_iter().map(turn).collect()))
}
