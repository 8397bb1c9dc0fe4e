//! Certificates and revocation list from AMD's key distribution service.
//!
//! Owns: which chip at which firmware level, and the three documents of it.
//! Must not: ask for a key that the hypervisor has to bring (VLEK): AMD gives that to it alone.
//!
//! AMD, *VCEK Certificate and KDS Interface Specification*, 57230; the report's layout is 56860's.

use std::fmt;

use bytes::Bytes;
use cocoon_protocol::attest::{SnpEndorsements, SnpProduct, SnpTcb};
use cocoon_protocol::units::Timestamp;

use super::certificate_table::{self, Guid};
use super::http::{Http, get};
use super::{Document, FetchError, Fetched, pem};

/// AMD's own service.
pub const AMD_KDS: &str = "https://kdsintf.amd.com";

/// AMD's certificates are below 2 kB, chains below 6 kB, lists below 2 kB.
const DOCUMENT_BYTES: usize = 65_536;

const REPORT_BYTES: usize = 1184;
const CHIP_ID: usize = 0x1a0;
const CHIP_ID_BYTES: usize = 64;
const KEY_INFORMATION: usize = 0x48;
const REPORTED_TCB: usize = 0x180;
/// Family and model of the processor, from version 3 of the report on.
const PROCESSOR: usize = 0x188;

/// What AMD derives a signing key from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Platform {
    /// The likeliest family first; one where the report says it.
    products: Vec<SnpProduct>,
    chip: [u8; CHIP_ID_BYTES],
    reported_tcb: [u8; 8],
    /// Signed by a key of the hypervisor's owner, not the chip's.
    vlek: bool,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chip = hex::encode(self.chip.get(..8).unwrap_or(&self.chip));
        let key = if self.vlek { "vlek" } else { "vcek" };
        write!(f, "snp-{key}-{chip}-{}", hex::encode(self.reported_tcb))
    }
}

impl Platform {
    /// From a report of this machine.
    pub(super) fn of(report: &[u8]) -> Result<Self, FetchError> {
        let evidence = |problem| FetchError::Evidence { problem };
        if report.len() != REPORT_BYTES {
            return Err(evidence("it is no SEV-SNP report"));
        }
        let short = || evidence("it is no SEV-SNP report");
        let version: [u8; 4] = field(report, 0).ok_or_else(short)?;
        let [family, model]: [u8; 2] = field(report, PROCESSOR).ok_or_else(short)?;
        let chip: [u8; CHIP_ID_BYTES] = field(report, CHIP_ID).ok_or_else(short)?;
        let reported_tcb = field(report, REPORTED_TCB).ok_or_else(short)?;
        let [keys] = field(report, KEY_INFORMATION).ok_or_else(short)?;
        let vlek = match (keys >> 2) & 7 {
            0 => false,
            1 => true,
            _ => return Err(evidence("the report is signed by no key that AMD certifies")),
        };
        if !vlek && chip == [0; CHIP_ID_BYTES] {
            return Err(evidence("the host hides the chip's identity (MASK_CHIP_ID)"));
        }
        let products = match (u32::from_le_bytes(version), family, model) {
            // Version 2 does not say; Turin's identities have eight bytes.
            (..=2, ..) if chip.iter().skip(8).all(|byte| *byte == 0) && !vlek => {
                vec![SnpProduct::Turin]
            }
            (..=2, ..) => vec![SnpProduct::Milan, SnpProduct::Genoa],
            (_, 0x19, 0x00..=0x0f) => vec![SnpProduct::Milan],
            (_, 0x19, 0x10..=0x1f | 0xa0..=0xaf) => vec![SnpProduct::Genoa],
            (_, 0x1a, 0x00..=0x11) => vec![SnpProduct::Turin],
            _ => return Err(evidence("the processor's family is not known to this program")),
        };
        Ok(Self { products, chip, reported_tcb, vlek })
    }

    /// The path of the chip's certificate.
    fn vcek_path(&self, product: SnpProduct) -> String {
        let tcb = tcb(product, self.reported_tcb);
        let chip = if product.has_fmc() { self.chip.get(..8) } else { self.chip.get(..) };
        let chip = hex::encode(chip.unwrap_or_default());
        let fmc = if product.has_fmc() { format!("fmcSPL={:02}&", tcb.fmc) } else { String::new() };
        format!(
            "/vcek/v1/{product}/{chip}?{fmc}blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
            tcb.boot_loader, tcb.tee, tcb.snp, tcb.microcode
        )
    }
}

fn field<const N: usize>(report: &[u8], offset: usize) -> Option<[u8; N]> {
    report.get(offset..)?.first_chunk().copied()
}

/// The components of a firmware level, whose places depend on the family.
const fn tcb(product: SnpProduct, raw: [u8; 8]) -> SnpTcb {
    let [first, second, third, fourth, _, _, seventh, microcode] = raw;
    if product.has_fmc() {
        SnpTcb { fmc: first, boot_loader: second, tee: third, snp: fourth, microcode }
    } else {
        SnpTcb { fmc: 0, boot_loader: first, tee: second, snp: seventh, microcode }
    }
}

/// Whether the service answers.
pub(super) async fn reach(http: &dyn Http, base: &str) -> Result<(), FetchError> {
    let url = format!("{}/vcek/v1/Milan/cert_chain", base.trim_end_matches('/'));
    get(http, Document::CertificateChain, &url, DOCUMENT_BYTES).await.map(drop)
}

pub(super) async fn fetch(
    http: &dyn Http,
    base: &str,
    platform: &Platform,
    certificates: &[u8],
    now: Timestamp,
) -> Result<Fetched, FetchError> {
    let base = base.trim_end_matches('/');
    let (product, vek) = if platform.vlek {
        let vek = certificate_table::find(certificates, Guid::Vlek);
        let problem = "it is signed by a VLEK, and the host hands in no certificate for it";
        let vek = vek.ok_or(FetchError::Evidence { problem })?;
        let problem = "it is signed by a VLEK and does not say the processor's family";
        let [product] = *platform.products.as_slice() else {
            return Err(FetchError::Evidence { problem });
        };
        (product, vek)
    } else {
        vcek(http, base, platform, certificates).await?
    };
    let key = if platform.vlek { "vlek" } else { "vcek" };

    let document = Document::CertificateChain;
    let url = format!("{base}/{key}/v1/{product}/cert_chain");
    let answer = get(http, document, &url, DOCUMENT_BYTES).await?;
    let chain = std::str::from_utf8(&answer.body).ok().and_then(pem::certificates);
    // The intermediate, then the root, which every consumer has.
    let Some([ask, _root]) = chain.as_deref() else {
        return Err(FetchError::Form { document, problem: "it is not two certificates in PEM" });
    };

    let document = Document::AmdCrl;
    let url = format!("{base}/{key}/v1/{product}/crl");
    let crl = get(http, document, &url, DOCUMENT_BYTES).await?.body;
    let problem = "it is no revocation list in DER that says when it ends";
    let crl_ends = pem::next_update(&crl).ok_or(FetchError::Form { document, problem })?;
    if crl_ends <= now {
        return Err(FetchError::Expired { document });
    }

    let ends = [&vek, ask].map(|it| pem::not_after(it)).into_iter().flatten();
    let expires = ends.chain([crl_ends]).min().unwrap_or(Timestamp::EPOCH);
    if expires <= now {
        return Err(FetchError::Expired { document: Document::Vcek });
    }
    let endorsements =
        SnpEndorsements { vek: vek.into(), ask: Bytes::copy_from_slice(ask), crl: crl.into() };
    Ok(Fetched { endorsements: endorsements.to_bytes().into(), expires })
}

/// The chip's certificate: from AMD, of the first family that knows the chip, and else from the
/// host's table, which may be of an older firmware level.
async fn vcek(
    http: &dyn Http,
    base: &str,
    platform: &Platform,
    certificates: &[u8],
) -> Result<(SnpProduct, Vec<u8>), FetchError> {
    let document = Document::Vcek;
    let mut failure = FetchError::Unknown { document };
    for product in &platform.products {
        let url = format!("{base}{}", platform.vcek_path(*product));
        match get(http, document, &url, DOCUMENT_BYTES).await {
            Ok(answer) if pem::not_after(&answer.body).is_some() => {
                return Ok((*product, answer.body));
            }
            Ok(_) => {
                failure = FetchError::Form { document, problem: "it is no certificate in DER" };
            }
            Err(error) => failure = error,
        }
    }
    let from_host = certificate_table::find(certificates, Guid::Vcek);
    match (from_host, platform.products.as_slice()) {
        (Some(vek), [product]) => {
            tracing::warn!(%failure, "using the certificate that the host hands in");
            Ok((*product, vek))
        }
        _ => Err(failure),
    }
}
