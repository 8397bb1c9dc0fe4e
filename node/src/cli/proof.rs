//! `receipt prove`, `receipt export`, and the checking of what they write.
//!
//! Owns: the files, what is said about a root on the ledger, and what to do when it is another.
//! Must not: decide whether a proof holds; `proof.rs` does.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use cocoon_ledger::operations::{VaultView, read_vault};
use cocoon_protocol::identity::{ReceiptHash, TonAddress};
use cocoon_protocol::receipt::{Receipt, SignedReceipt};
use cocoon_protocol::units::Millis;

use super::output::{Printer, utc};
use super::{Context, ExitStatus, Failure, unexpected};
use crate::config::{LedgerChoice, Loaded, Origin, SETTINGS};
use crate::control::{Answer, ProofStanding, Request};
use crate::data_folder::FILE_MODE;
use crate::proof::{ProofFile, Shown};
use crate::shutdown::Shutdown;

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A proof a line, as `receipt prove` writes it and `receipt verify` reads it.
    Jsonl,
    /// A table for a spreadsheet, without proofs.
    Csv,
}

/// Where a file goes and what is left out of it.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// Write to this file instead of standard output; an existing one is replaced.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave out the salt, which lets a reader check guesses of the texts.
    #[arg(long)]
    without_salt: bool,
}

impl Target {
    fn write(&self, printer: &Printer, text: &str) -> Result<(), Failure> {
        let Some(path) = &self.output else { return printer.bytes(text.as_bytes()) };
        let about = |error: std::io::Error| {
            Failure::new(anyhow!(error).context(format!("cannot write {}", path.display())))
        };
        // Private: whoever has the salt can check guesses of what was asked.
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(FILE_MODE);
        let mut file = options.open(path).map_err(about)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(about)
    }

    fn line(&self, file: ProofFile) -> String {
        let file = if self.without_salt { file.without_salt() } else { file };
        file.line() + "\n"
    }
}

pub(super) fn prove(
    context: &Context,
    receipt: ReceiptHash,
    target: &Target,
) -> Result<(), Failure> {
    let Answer::Proof { file, standing } = context.ask(Request::ReceiptProve { receipt })? else {
        return Err(unexpected());
    };
    target.write(&context.printer, &target.line(*file))?;
    context.printer.note(format_args!("{}\n", advice(standing)));
    Ok(())
}

/// What the maker of a proof should know.
const fn advice(standing: ProofStanding) -> &'static str {
    match standing {
        ProofStanding::Settled { verified: true } => {
            "the vault stores the root of this proof (verified): anybody can check it on the ledger"
        }
        ProofStanding::Settled { verified: false } => {
            "the vault stores the root of this proof, as the ledger's server says (UNVERIFIED)"
        }
        ProofStanding::NotSettled => {
            "the root that the vault stores is older than this receipt: when the provider has \
             settled (it does from its threshold on, or with `cocoon-node channel settle`), run \
             `receipt prove` again for a proof that the ledger bears out"
        }
        ProofStanding::OtherRoot => {
            "the vault has no allocation of this epoch any more, or stores a root that is not in \
             this node's log: the proof holds by itself, and the ledger does not bear it out"
        }
        ProofStanding::Unread => {
            "the ledger did not answer: run `receipt prove` again for a proof of what it stores"
        }
        ProofStanding::NoLog => {
            "this node does not have the channel's log, which its consumer keeps: the file proves \
             the receipt and its texts, and has no place in the log"
        }
    }
}

pub(super) fn export(context: &Context, format: Format, target: &Target) -> Result<(), Failure> {
    let (mut text, mut after) = (String::new(), None);
    if format == Format::Csv {
        text.push_str(CSV_COLUMNS);
    }
    loop {
        let Answer::Proofs(files) = context.ask(Request::ReceiptExport { after })? else {
            return Err(unexpected());
        };
        let Some(last) = files.last() else { break };
        after = Some(last.receipt);
        for file in files {
            match format {
                Format::Jsonl => text.push_str(&target.line(file)),
                Format::Csv => text.push_str(&csv(&file).map_err(Failure::new)?),
            }
        }
    }
    target.write(&context.printer, &text)
}

const CSV_COLUMNS: &str = "receipt,role,started,ended,job,provider,vault,epoch,model,tier,\
    prompt_tokens,completion_tokens,price_nanoton,fee_nanoton,end\n";

fn csv(file: &ProofFile) -> anyhow::Result<String> {
    let signed = SignedReceipt::decode(&hex::decode(&file.signed)?)?;
    let receipt = Receipt::decode(&signed.bytes)?;
    let role = if file.provided { "given" } else { "taken" };
    let (prompt, completion) = (receipt.usage.prompt.get(), receipt.usage.completion.get());
    let (price, fee) = (receipt.price.as_nano(), receipt.fee.as_nano());
    let (started, ended) = (utc(receipt.started), utc(receipt.ended));
    let Receipt { job, provider, vault, epoch, model, tier, finish, .. } = receipt;
    let finish = finish.as_str();
    // Digits, words and times: nothing that would need quoting.
    Ok(format!(
        "{},{role},{started},{ended},{job},{provider},{vault},{epoch},{model},{tier},{prompt},\
         {completion},{price},{fee},{finish}\n",
        file.receipt
    ))
}

/// Checks every line, and where a ledger was named, every root.
pub(super) fn check(context: &Context, path: &Path, text: &str) -> Result<Vec<Checked>, Failure> {
    let mut ledger = Reader::named(context)?;
    let mut checked = Vec::new();
    for (number, line) in text.split_terminator('\n').enumerate() {
        let shown = ProofFile::check(line).map_err(|error| {
            let place = format!("{}:{}", path.display(), number.saturating_add(1));
            Failure::new(anyhow!(error).context(format!("receipt: NOT valid ({place})")))
                .with_status(ExitStatus::Invalid)
        })?;
        let anchor = match &mut ledger {
            Some(ledger) => ledger.anchor(&shown)?,
            None => Anchor::NotAsked,
        };
        checked.push(Checked { shown, anchor });
    }
    Ok(checked)
}

/// A proof that holds by itself, and what the ledger says about it.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) shown: Shown,
    pub(super) anchor: Anchor,
}

/// What the ledger says about a proof's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// No ledger was named.
    NotAsked,
    /// The file has no place in a log.
    NoLog,
    /// The vault stores this root.
    Stored { verified: bool },
    /// The vault stores another root.
    Other { verified: bool },
    /// The vault stores no root yet.
    Nothing { verified: bool },
    /// The vault has no such allocation.
    Gone { verified: bool },
    /// There is no vault.
    NoVault,
}

impl Anchor {
    /// Whether the ledger was asked and does not bear the proof out.
    pub(super) const fn is_missing(self) -> bool {
        !matches!(self, Self::NotAsked | Self::Stored { .. })
    }

    /// In a line, and what to do.
    pub(super) fn describe(self) -> String {
        let read = |verified: bool| {
            if verified { "verified read" } else { "UNVERIFIED read: a server said so" }
        };
        match self {
            Self::NotAsked => "not asked; `--ledger URL` compares the root with the vault's".into(),
            Self::NoLog => "the file has no place in a log: ask the consumer for its proof".into(),
            Self::Stored { verified } => format!("the vault stores this root ({})", read(verified)),
            Self::Other { verified } => format!(
                "the vault stores ANOTHER root ({}). If it is older than this receipt, let the \
                 provider settle (`cocoon-node channel settle`); then, or if it is newer, have \
                 the proof made again (`cocoon-node receipt prove`)",
                read(verified)
            ),
            Self::Nothing { verified } => format!(
                "nothing was settled in this allocation yet ({}): let the provider settle \
                 (`cocoon-node channel settle`), then make the proof again",
                read(verified)
            ),
            Self::Gone { verified } => format!(
                "the vault has no allocation of this epoch any more ({}); its last root is in the \
                 vault's transactions",
                read(verified)
            ),
            Self::NoVault => "there is no vault at this address; is it another network's?".into(),
        }
    }
}

/// Reads vaults from the ledger that the user has named.
struct Reader<'a> {
    context: &'a Context,
    loaded: Loaded,
    seen: BTreeMap<TonAddress, Option<VaultView>>,
}

impl<'a> Reader<'a> {
    /// `None` when the user has named no ledger: a default is nobody's choice.
    fn named(context: &'a Context) -> Result<Option<Self>, Failure> {
        let loaded = context.load_with_origins()?;
        let row = SETTINGS.iter().position(|row| row.key == "ledger");
        let origin = row.and_then(|row| loaded.origins.get(row));
        if origin.is_none_or(|origin| *origin == Origin::Default) {
            return Ok(None);
        }
        if loaded.config.ledger == LedgerChoice::Embedded {
            return Err(Failure::new(anyhow!("an embedded ledger is inside its running node"))
                .with_status(ExitStatus::Usage)
                .with_hint(Some("give `--ledger URL`, at which that node serves it")));
        }
        Ok(Some(Self { context, loaded, seen: BTreeMap::new() }))
    }

    fn anchor(&mut self, shown: &Shown) -> Result<Anchor, Failure> {
        let Some((root, _)) = &shown.log else { return Ok(Anchor::NoLog) };
        let receipt = shown.receipt.receipt();
        if !self.seen.contains_key(&receipt.vault) {
            let view = self.read(receipt.vault)?;
            self.seen.insert(receipt.vault, view);
        }
        let Some(view) = self.seen.get(&receipt.vault).and_then(Option::as_ref) else {
            return Ok(Anchor::NoVault);
        };
        let verified = view.verified;
        let allocation = view.allocation(&receipt.provider);
        Ok(match allocation.filter(|it| it.epoch == receipt.epoch).map(|it| it.receipts_root) {
            None => Anchor::Gone { verified },
            Some(stored) if stored == *root => Anchor::Stored { verified },
            Some(stored) if stored == [0; 32] => Anchor::Nothing { verified },
            Some(_) => Anchor::Other { verified },
        })
    }

    fn read(&self, vault: TonAddress) -> Result<Option<VaultView>, Failure> {
        let folder = self.context.folder()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let shutdown = Shutdown::new(Millis::from_secs(1)).map_err(Failure::new)?;
            let tasks = shutdown.tasks();
            let ledger = crate::start::ledger::open(&self.loaded.config, &folder, &tasks).await;
            let ledger = ledger.map_err(Failure::new)?;
            read_vault(ledger.ledger.as_ref(), vault).await.map_err(Failure::new)
        })
    }
}
