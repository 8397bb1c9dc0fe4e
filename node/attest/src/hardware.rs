//! The attester of a real TEE: a quote from the kernel or the device, with endorsements beside it.
//!
//! Owns: which interface is asked, the check that the quote is over what was asked, and the shelf
//! that endorsements wait on. Must not: fetch endorsements, or send a quote without any: a consumer
//! never asks a vendor.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use cocoon_protocol::attest::{Evidence, EvidenceKind, HostData, REPORT_DATA_BYTES, ReportData};
use cocoon_protocol::limits;
use cocoon_protocol::units::Timestamp;
use dcap_qvl::quote::Quote;

use crate::attester::{Attester, QuoteError, Quoted};
use crate::sev_guest::{self, Device, SevGuestDevice, SevGuestError};
use crate::tsm::{Tsm, TsmError, TsmOptions, TsmProvider};

/// A vendor's TEE that a guest can run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tee {
    /// Intel TDX.
    Tdx,
    /// AMD SEV-SNP.
    Snp,
}

impl Tee {
    /// The kind of its evidence.
    pub const fn kind(self) -> EvidenceKind {
        match self {
            Self::Tdx => EvidenceKind::Tdx,
            Self::Snp => EvidenceKind::Snp,
        }
    }

    const fn provider(self) -> TsmProvider {
        match self {
            Self::Tdx => TsmProvider::Tdx,
            Self::Snp => TsmProvider::Snp,
        }
    }
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tdx => "TDX",
            Self::Snp => "SEV-SNP",
        })
    }
}

/// Why the TEE made no evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HardwareError {
    /// The kernel's interface failed.
    #[error(transparent)]
    Tsm(#[from] TsmError),
    /// The device failed.
    #[error(transparent)]
    SevGuest(#[from] SevGuestError),
    /// What came is no quote, or one over something else than was asked.
    #[error("the TEE answered with something that is not a {0} quote over what was asked")]
    NotOurs(Tee),
}

/// Endorsements that wait for the next quote: whoever fetches them puts them here, and every quote
/// takes a copy along.
#[derive(Clone, Debug, Default)]
pub struct EndorsementShelf(Arc<RwLock<Bytes>>);

impl EndorsementShelf {
    /// Replaces what is there.
    pub fn put(&self, endorsements: Bytes) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = endorsements;
    }

    /// What is there; empty before the first.
    pub fn endorsements(&self) -> Bytes {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Evidence before its endorsements.
#[derive(Clone, Debug)]
pub struct RawEvidence {
    /// The quote or report.
    pub evidence: Evidence,
    /// SEV-SNP: the table of certificates that the host handed in, unread; may be empty.
    pub certificates: Bytes,
}

/// An attester in a guest.
#[derive(Debug)]
pub struct HardwareAttester {
    tee: Tee,
    source: Source,
    shelf: EndorsementShelf,
}

#[derive(Debug)]
enum Source {
    Tsm(Tsm),
    Device { device: Box<dyn SevGuestDevice>, level: u8 },
}

impl HardwareAttester {
    /// Asks the kernel's configfs-tsm. Nothing is touched before the first quote.
    pub fn tsm(tee: Tee, options: TsmOptions, shelf: EndorsementShelf) -> Self {
        Self { tee, source: Source::Tsm(Tsm::new(options)), shelf }
    }

    /// Asks `/dev/sev-guest`, for the privilege level (VMPL) `level`.
    pub fn sev_guest(level: u8, shelf: EndorsementShelf) -> Self {
        Self { tee: Tee::Snp, source: Source::Device { device: Box::new(Device), level }, shelf }
    }

    #[cfg(test)]
    fn with(tee: Tee, source: Source, shelf: EndorsementShelf) -> Self {
        Self { tee, source, shelf }
    }

    /// The vendor.
    pub const fn tee(&self) -> Tee {
        self.tee
    }

    /// Evidence over `report_data`, without endorsements: to find out which ones it needs, and to
    /// try the TEE before anybody depends on it.
    ///
    /// # Errors
    /// In words for the operator; peers hear less.
    pub fn raw(&self, report_data: &ReportData) -> Result<RawEvidence, HardwareError> {
        let (quote, certificates) = match &self.source {
            Source::Tsm(tsm) => {
                let report = tsm.report(self.tee.provider(), report_data)?;
                (report.quote, report.certificates)
            }
            Source::Device { device, level } => {
                (sev_guest::report(device.as_ref(), report_data, *level)?, Vec::new())
            }
        };
        if carried(self.tee, &quote) != Some(*report_data.as_bytes()) {
            return Err(HardwareError::NotOurs(self.tee));
        }
        let quote = Bytes::from(quote);
        let evidence = match self.tee {
            Tee::Tdx => Evidence::Tdx { quote },
            Tee::Snp => Evidence::Snp { report: quote },
        };
        Ok(RawEvidence { evidence, certificates: certificates.into() })
    }
}

impl Attester for HardwareAttester {
    fn kind(&self) -> EvidenceKind {
        self.tee.kind()
    }

    fn quote(&self, report_data: &ReportData, _: Timestamp) -> Result<Quoted, QuoteError> {
        let endorsements = self.shelf.endorsements();
        if endorsements.is_empty() {
            return Err(QuoteError::NoEndorsements);
        }
        let raw = self.raw(report_data).map_err(|error| {
            tracing::error!(%error, "the TEE made no evidence");
            QuoteError::Unavailable
        })?;
        if raw.evidence.quote().len() > limits::EVIDENCE_BYTES {
            return Err(QuoteError::TooLarge);
        }
        Ok(Quoted { evidence: raw.evidence, endorsements })
    }
}

/// Offset of the report data in a SEV-SNP report (AMD 56860, `ATTESTATION_REPORT`).
const SNP_REPORT_DATA: usize = 0x50;
/// Offset of the host's data there.
const SNP_HOST_DATA: usize = 0xc0;

/// The report data that evidence says it is over. Nothing is verified: this is our own TEE's answer,
/// and consumers verify it.
fn carried(tee: Tee, quote: &[u8]) -> Option<[u8; REPORT_DATA_BYTES]> {
    match tee {
        Tee::Tdx => Some(Quote::parse(quote).ok()?.report.as_td10()?.report_data),
        Tee::Snp => quote.get(SNP_REPORT_DATA..)?.first_chunk().copied(),
    }
}

/// What the host set as a SEV-SNP guest's host data at launch, as the guest's own report says;
/// `None` for other evidence.
pub fn host_data(evidence: &Evidence) -> Option<HostData> {
    match evidence {
        Evidence::Snp { report } => {
            report.get(SNP_HOST_DATA..)?.first_chunk().copied().map(HostData::from_bytes)
        }
        Evidence::None
        | Evidence::Tdx { .. }
        | Evidence::SimulatedTdx { .. }
        | Evidence::SimulatedSnp { .. } => None,
    }
}

/// Whether a path is there, without following what it leads to.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attester::report_data;
    use crate::tsm::tests::Tree;

    const TDX_QUOTE: &[u8] = include_bytes!("../testdata/dcap/tdx_quote");
    const NOW: Timestamp = Timestamp::EPOCH;

    /// A real quote with the report data replaced: its form is right, which is all that is looked at.
    fn tdx_quote(data: &[u8]) -> Vec<u8> {
        let mut quote = TDX_QUOTE.to_vec();
        quote[568..632].copy_from_slice(data);
        quote
    }

    fn snp_report(data: &[u8]) -> Vec<u8> {
        let mut report = vec![0; 1184];
        report[0x50..0x90].copy_from_slice(data);
        report[0xc0..0xe0].fill(9);
        report
    }

    fn attester(tee: Tee, tree: Tree) -> HardwareAttester {
        let options = tree.options();
        let source = Source::Tsm(Tsm::with_kernel(options, Arc::new(tree)));
        HardwareAttester::with(tee, source, EndorsementShelf::default())
    }

    #[test]
    fn a_tdx_quote_takes_along_what_lies_on_the_shelf() {
        let tdx = attester(Tee::Tdx, Tree::new("tdx_guest", tdx_quote));
        assert_eq!(tdx.quote(&report_data(7), NOW).unwrap_err(), QuoteError::NoEndorsements);
        for endorsements in [&b"first"[..], b"second"] {
            tdx.shelf.put(Bytes::copy_from_slice(endorsements));
            let quoted = tdx.quote(&report_data(7), NOW).unwrap();
            let quote = Bytes::from(tdx_quote(report_data(7).as_bytes()));
            assert_eq!(quoted.evidence, Evidence::Tdx { quote });
            assert_eq!(quoted.endorsements, endorsements);
        }
        assert_eq!(host_data(&tdx.raw(&report_data(7)).unwrap().evidence), None);
    }

    #[test]
    fn a_sev_snp_report_comes_with_the_hosts_certificates_and_host_data() {
        let tree = Tree::new("sev_guest", snp_report).with_certificates(b"table");
        let raw = attester(Tee::Snp, tree).raw(&report_data(7)).unwrap();
        let report = Bytes::from(snp_report(report_data(7).as_bytes()));
        assert_eq!(raw.evidence, Evidence::Snp { report });
        assert_eq!(raw.certificates, &b"table"[..]);
        assert_eq!(host_data(&raw.evidence), Some(HostData::from_bytes([9; 32])));
    }

    #[test]
    fn a_quote_over_something_else_never_leaves() {
        let other = |_: &[u8]| tdx_quote(report_data(1).as_bytes());
        let tdx = attester(Tee::Tdx, Tree::new("tdx_guest", other));
        assert_eq!(tdx.raw(&report_data(7)).unwrap_err(), HardwareError::NotOurs(Tee::Tdx));
        tdx.shelf.put(Bytes::from_static(b"{}"));
        assert_eq!(tdx.quote(&report_data(7), NOW).unwrap_err(), QuoteError::Unavailable);
        for garbage in [&b"no quote"[..], &TDX_QUOTE[..100]] {
            let tree = Tree::new("tdx_guest", move |_: &[u8]| garbage.to_vec());
            let refusal = attester(Tee::Tdx, tree).raw(&report_data(7)).unwrap_err();
            assert_eq!(refusal, HardwareError::NotOurs(Tee::Tdx));
        }
        let short = attester(Tee::Snp, Tree::new("sev_guest", |_: &[u8]| vec![0; 0x60]));
        assert_eq!(short.raw(&report_data(7)).unwrap_err(), HardwareError::NotOurs(Tee::Snp));
    }

    /// `/dev/sev-guest` as a test has it.
    #[derive(Debug)]
    struct FakeDevice(Result<(), SevGuestError>);

    impl SevGuestDevice for FakeDevice {
        fn report(
            &self,
            data: &[u8; REPORT_DATA_BYTES],
            level: u8,
        ) -> Result<Vec<u8>, SevGuestError> {
            self.0.clone()?;
            let mut report = snp_report(data);
            report[0x30] = level;
            Ok(report)
        }
    }

    fn device(answer: Result<(), SevGuestError>) -> HardwareAttester {
        let source = Source::Device { device: Box::new(FakeDevice(answer)), level: 2 };
        HardwareAttester::with(Tee::Snp, source, EndorsementShelf::default())
    }

    #[test]
    fn the_device_stands_in_where_the_kernel_has_no_configfs() {
        let raw = device(Ok(())).raw(&report_data(7)).unwrap();
        assert_eq!(raw.evidence.quote()[0x30], 2);
        assert!(raw.certificates.is_empty());
    }

    #[test]
    fn a_device_that_refuses_is_reported_in_its_words() {
        let refused = SevGuestError::Refused { reason: "VMM: throttled".into() };
        for error in [SevGuestError::Missing, SevGuestError::Denied, refused] {
            let failed = device(Err(error.clone())).raw(&report_data(7)).unwrap_err();
            assert_eq!(failed, HardwareError::SevGuest(error.clone()));
            assert_eq!(failed.to_string(), error.to_string());
        }
        // This machine has none, or one that this test may not use.
        let real = HardwareAttester::sev_guest(0, EndorsementShelf::default());
        if !exists(Path::new(sev_guest::DEVICE)) {
            let failed = real.raw(&report_data(7)).unwrap_err();
            assert_eq!(failed, HardwareError::SevGuest(SevGuestError::Missing));
        }
    }
}
