//! Quotes from a real TDX guest, through the kernel's configfs-tsm (Linux 6.7 and later,
//! `Documentation/ABI/testing/configfs-tsm`).
//!
//! Owns: one report entry per process, and the collateral file beside it.
//! Must not: be asked by anything but the channel: whoever can choose report data owns the guest's
//! word. Needs root, and a quoting service on the host. Exercised here on a fake tree only.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use cocoon_protocol::attest::{Evidence, EvidenceKind, ReportData};
use cocoon_protocol::limits;
use cocoon_protocol::units::Timestamp;

use crate::attester::{Attester, QuoteError, Quoted};

/// Where a TDX guest finds what it needs.
#[derive(Clone, Debug)]
pub struct TdxGuestOptions {
    /// The kernel's report folder, normally `/sys/kernel/config/tsm/report`.
    pub reports: PathBuf,
    /// DCAP collateral for this platform as JSON, kept fresh by the operator from Intel's service
    /// or a mirror of it, so that no consumer has to ask there. Read for every quote.
    pub collateral: PathBuf,
}

/// An attester in a TDX guest.
#[derive(Debug)]
pub struct TdxGuest {
    options: TdxGuestOptions,
    /// The kernel's entry holds one request at a time.
    turn: Mutex<()>,
}

/// How often a report is asked for again when another writer got in between.
const ATTEMPTS: usize = 3;
const PROVIDER: &[u8] = b"tdx_guest";

impl TdxGuest {
    /// An attester; nothing is touched before the first quote.
    pub fn new(options: TdxGuestOptions) -> Self {
        Self { options, turn: Mutex::new(()) }
    }

    fn report(&self, report_data: &ReportData) -> Result<Vec<u8>, QuoteError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = self.options.reports.join(format!("cocoon-node-{}", std::process::id()));
        match std::fs::create_dir(&entry) {
            // Left over from a process of the same id: it is ours now.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(unavailable("create a report", &error));
            }
            _ => {}
        }
        let quote = exchange(
            &|attribute| read_bounded(&entry.join(attribute), limits::EVIDENCE_BYTES),
            &|bytes| std::fs::write(entry.join("inblob"), bytes),
            report_data,
        );
        if let Err(error) = std::fs::remove_dir(&entry) {
            tracing::debug!(%error, "could not remove a TSM report entry");
        }
        quote
    }
}

impl Attester for TdxGuest {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Tdx
    }

    fn quote(&self, report_data: &ReportData, _: Timestamp) -> Result<Quoted, QuoteError> {
        let quote = self.report(report_data)?;
        let collateral = read_bounded(&self.options.collateral, limits::ATTEST_RESPONSE_BYTES)
            .map_err(|error| unavailable("read the collateral", &error))?;
        if quote.len() > limits::EVIDENCE_BYTES || collateral.len() > limits::ATTEST_RESPONSE_BYTES
        {
            return Err(QuoteError::TooLarge);
        }
        Ok(Quoted {
            evidence: Evidence::Tdx { quote: Bytes::from(quote) },
            endorsements: Bytes::from(collateral),
        })
    }
}

fn unavailable(what: &'static str, error: &io::Error) -> QuoteError {
    tracing::error!(%error, what, "the TEE's interface failed");
    QuoteError::Unavailable
}

/// At most `limit` bytes and one more, so that the caller can tell that it was too long.
fn read_bounded(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes the report data and reads the quote, again if the entry's generation moved meanwhile: then
/// somebody else wrote, and the quote may be over their data.
fn exchange(
    read: &dyn Fn(&str) -> io::Result<Vec<u8>>,
    write: &dyn Fn(&[u8]) -> io::Result<()>,
    report_data: &ReportData,
) -> Result<Vec<u8>, QuoteError> {
    let failed = |error: io::Error| unavailable("make a report", &error);
    for _ in 0..ATTEMPTS {
        write(report_data.as_bytes()).map_err(failed)?;
        let before = read("generation").map_err(failed)?;
        let provider = read("provider").map_err(failed)?;
        if provider.trim_ascii() != PROVIDER {
            let provider = String::from_utf8_lossy(&provider).trim().to_owned();
            tracing::error!(provider, "the kernel's TSM is not a TDX guest");
            return Err(QuoteError::Unavailable);
        }
        let quote = read("outblob").map_err(failed)?;
        if read("generation").map_err(failed)? == before {
            return if quote.is_empty() { Err(QuoteError::Unavailable) } else { Ok(quote) };
        }
        tracing::warn!("another writer got into the TSM report; asking again");
    }
    Err(QuoteError::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const QUOTE: &[u8] = include_bytes!("../testdata/dcap/tdx_quote");

    /// A tree as the kernel shows it, with the entry that this process will ask for.
    fn tree(provider: &str, quote: &[u8]) -> (tempfile::TempDir, TdxGuest, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let entry = folder.path().join(format!("cocoon-node-{}", std::process::id()));
        std::fs::create_dir(&entry).unwrap();
        std::fs::write(entry.join("provider"), provider).unwrap();
        std::fs::write(entry.join("generation"), "1\n").unwrap();
        std::fs::write(entry.join("outblob"), quote).unwrap();
        let collateral = folder.path().join("collateral.json");
        std::fs::write(&collateral, "{}").unwrap();
        let reports = folder.path().to_owned();
        (folder, TdxGuest::new(TdxGuestOptions { reports, collateral }), entry)
    }

    fn quote(guest: &TdxGuest) -> Result<Quoted, QuoteError> {
        guest.quote(&crate::attester::report_data(7), Timestamp::EPOCH)
    }

    #[test]
    fn report_data_goes_in_and_the_quote_comes_out_with_its_collateral() {
        let (_folder, guest, entry) = tree("tdx_guest\n", QUOTE);
        let quoted = quote(&guest).unwrap();
        assert_eq!(
            std::fs::read(entry.join("inblob")).unwrap(),
            *crate::attester::report_data(7).as_bytes()
        );
        assert_eq!(quoted.evidence, Evidence::Tdx { quote: QUOTE.into() });
        assert_eq!(quoted.endorsements, Bytes::from_static(b"{}"));
    }

    #[test]
    fn a_tree_that_is_not_a_tdx_guest_s_makes_no_quote() {
        let unavailable = QuoteError::Unavailable;
        let (_folder, other, _) = tree("sev_guest\n", QUOTE);
        assert_eq!(quote(&other).unwrap_err(), unavailable);
        let (_folder, empty, _) = tree("tdx_guest\n", b"");
        assert_eq!(quote(&empty).unwrap_err(), unavailable);
        let (folder, without_collateral, _) = tree("tdx_guest\n", QUOTE);
        std::fs::remove_file(folder.path().join("collateral.json")).unwrap();
        assert_eq!(quote(&without_collateral).unwrap_err(), unavailable);
        let missing = folder.path().join("no such folder");
        let collateral = missing.clone();
        let missing = TdxGuest::new(TdxGuestOptions { reports: missing, collateral });
        assert_eq!(quote(&missing).unwrap_err(), unavailable);
    }

    #[test]
    fn a_quote_above_the_bound_is_not_read_whole() {
        let (_folder, guest, _) = tree("tdx_guest", &vec![1; 2 * limits::EVIDENCE_BYTES]);
        assert_eq!(quote(&guest).unwrap_err(), QuoteError::TooLarge);
    }

    #[test]
    fn a_quote_that_another_writer_may_have_spoilt_is_asked_for_again() {
        for (conflicts, expected) in
            [(2, Ok(b"quote 3".to_vec())), (3, Err(QuoteError::Unavailable))]
        {
            // Each attempt reads the generation twice; it moves in between while conflicts last.
            let (writes, reads) = (Cell::new(0), Cell::new(0));
            let read = |attribute: &str| {
                Ok(match attribute {
                    "provider" => b"tdx_guest".to_vec(),
                    "generation" => {
                        reads.set(reads.get() + 1);
                        let moved = writes.get() <= conflicts;
                        let generation = if moved { reads.get() } else { 0 };
                        generation.to_string().into_bytes()
                    }
                    _ => format!("quote {}", writes.get()).into_bytes(),
                })
            };
            let write = |_: &[u8]| {
                writes.set(writes.get() + 1);
                Ok(())
            };
            assert_eq!(exchange(&read, &write, &crate::attester::report_data(0)), expected);
        }
    }
}
