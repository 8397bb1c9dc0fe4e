//! `tee advisories`: lists of what a maintainer withdraws, signed and checked.
//!
//! Owns: the files and the layout. Must not: know the form; `cocoon_attest` does.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use cocoon_attest::{ADVISORY_FILE_BYTES, read_advisories, sign_advisories};
use cocoon_protocol::attest::WithdrawnImage;
use sha2::{Digest as _, Sha256};

use super::{Context, ExitStatus, Failure};
use crate::cli::output::{Printer, utc};
use crate::run::Foundation;

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// Sign a list with this node's key, for policies that name its id as maintainer.
    Sign {
        /// The list: TOML, see the README.
        file: PathBuf,
        /// Write to this file instead of standard output.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Check a list's signature and show what it withdraws.
    Show {
        /// A signed list.
        file: PathBuf,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Sign { file, output } => sign(context, &file, output.as_deref()),
        Command::Show { file } => show(&context.printer, &read(&file)?),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let about = |error: std::io::Error| {
        Failure::new(anyhow!(error).context(format!("cannot read {}", file.display())))
    };
    let length = std::fs::metadata(file).map_err(about)?.len();
    if length > u64::try_from(ADVISORY_FILE_BYTES).unwrap_or(u64::MAX) {
        let error = anyhow!("{} is too long to be a list of advisories", file.display());
        return Err(Failure::new(error).with_status(ExitStatus::Invalid));
    }
    std::fs::read(file).map_err(about)
}

fn invalid(error: impl Into<anyhow::Error>) -> Failure {
    Failure::new(error).with_status(ExitStatus::Invalid)
}

fn sign(context: &Context, file: &Path, output: Option<&Path>) -> Result<(), Failure> {
    let content = String::from_utf8(read(file)?).map_err(invalid)?;
    let foundation = Foundation::open(&context.load_unchecked()?)?;
    let key = &foundation.key;
    let signed = sign_advisories(&content, key).map_err(invalid)?;
    match output {
        None => context.printer.bytes(signed.as_bytes()),
        Some(path) => std::fs::write(path, signed).map_err(|error| {
            Failure::new(anyhow!(error).context(format!("cannot write {}", path.display())))
        }),
    }
}

fn show(printer: &Printer, bytes: &[u8]) -> Result<(), Failure> {
    let list = read_advisories(bytes).map_err(invalid)?;
    printer.line(format_args!("maintainer  {}", list.maintainer))?;
    printer.line(format_args!("version     {}", list.version))?;
    printer.line(format_args!("ends        {}", utc(list.expires)))?;
    printer.line(format_args!("sha256      {}", hex::encode(Sha256::digest(bytes))))?;
    let (tdx, snp) = (&list.tdx, &list.snp);
    for advisory in &tdx.reject_advisories {
        printer.line(format_args!("refuses     TDX platforms under {advisory:?}"))?;
    }
    if tdx.min_tcb_eval_data_number > 0 {
        let number = tdx.min_tcb_eval_data_number;
        printer.line(format_args!("refuses     TDX collateral before evaluation {number}"))?;
    }
    for ppid in &tdx.reject_ppid {
        printer.line(format_args!("refuses     TDX platform {ppid}"))?;
    }
    for (product, least) in &snp.min_tcb {
        printer.line(format_args!("refuses     {product} with firmware below {least}"))?;
    }
    for chip in &snp.reject_chip_id {
        printer.line(format_args!("refuses     SEV-SNP chip {chip}"))?;
    }
    for WithdrawnImage { measurement, reason } in tdx.withdrawn.iter().chain(&snp.withdrawn) {
        printer.line(format_args!("refuses     image {measurement}: {reason}"))?;
    }
    Ok(())
}
