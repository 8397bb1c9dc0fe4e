//! DCAP collateral from Intel's provisioning certification service, version 4, or a cache of it.
//!
//! Owns: the four documents of a TDX platform, and the JSON in which they travel.
//! Must not: follow a URL that a document names: what a service writes into a certificate is not
//! where this node connects to.
//!
//! Intel, *Provisioning Certification Service for ECDSA Attestation*, API version 4.

use std::fmt;

use cocoon_protocol::units::Timestamp;
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::intel::{quote_ca, quote_fmspc};
use dcap_qvl::quote::Quote;
use serde_json::Value;

use super::http::{Http, HttpAnswer, get};
use super::{Document, FetchError, Fetched, pem};

/// Intel's own service.
pub const INTEL_PCS: &str = "https://api.trustedservices.intel.com";
/// Where Intel publishes its root's revocation list; the service itself does not have it.
pub const INTEL_ROOT_CRL: &str =
    "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";

/// TCB info has a few dozen kilobytes.
const DOCUMENT_BYTES: usize = 131_072;

/// What Intel tells platforms apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Platform {
    fmspc: String,
    /// `platform` or `processor`.
    ca: &'static str,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tdx-{}-{}", self.fmspc, self.ca)
    }
}

impl Platform {
    /// From a quote of this machine, which carries its platform's certificate.
    pub(super) fn of(quote: &[u8]) -> Result<Self, FetchError> {
        let evidence = |problem| FetchError::Evidence { problem };
        let quote = Quote::parse(quote).map_err(|_| evidence("it is no TDX quote"))?;
        let unknown = "the quote carries no platform certificate; the host's quoting service must \
                       be set up for ECDSA with PCK certificates";
        let fmspc = quote_fmspc(&quote).map_err(|_| evidence(unknown))?;
        let ca = quote_ca(&quote).map_err(|_| evidence(unknown))?;
        Ok(Self { fmspc: hex::encode_upper(fmspc), ca: ca.as_id_str() })
    }
}

/// The service's address, as people copy it.
fn service(base: &str) -> &str {
    base.trim_end_matches('/')
        .trim_end_matches("/sgx/certification/v4")
        .trim_end_matches("/tdx/certification/v4")
}

/// Whether the service answers.
pub(super) async fn reach(http: &dyn Http, base: &str) -> Result<(), FetchError> {
    let url = format!("{}/tdx/certification/v4/qe/identity?update=standard", service(base));
    get(http, Document::QeIdentity, &url, DOCUMENT_BYTES).await.map(drop)
}

pub(super) async fn fetch(
    http: &dyn Http,
    base: &str,
    platform: &Platform,
    now: Timestamp,
) -> Result<Fetched, FetchError> {
    let base = service(base);
    let url = |tee, rest: &str| format!("{base}/{tee}/certification/v4/{rest}");
    let (fmspc, ca) = (&platform.fmspc, platform.ca);

    let document = Document::TcbInfo;
    let tcb_url = url("tdx", &format!("tcb?fmspc={fmspc}&update=standard"));
    let answer = get(http, document, &tcb_url, DOCUMENT_BYTES).await?;
    let names = ["TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"];
    let tcb_info_issuer_chain = issuer_chain(document, &answer, &names)?;
    let (tcb_info, tcb_info_signature) = signed(document, &answer.body, "tcbInfo", now)?;
    check_tcb_info(&tcb_info, fmspc)?;

    let document = Document::QeIdentity;
    let qe_url = url("tdx", "qe/identity?update=standard");
    let answer = get(http, document, &qe_url, DOCUMENT_BYTES).await?;
    let names = ["SGX-Enclave-Identity-Issuer-Chain"];
    let qe_identity_issuer_chain = issuer_chain(document, &answer, &names)?;
    let (qe_identity, qe_identity_signature) =
        signed(document, &answer.body, "enclaveIdentity", now)?;

    let document = Document::PckCrl;
    let crl_url = url("sgx", &format!("pckcrl?ca={ca}&encoding=der"));
    let answer = get(http, document, &crl_url, DOCUMENT_BYTES).await?;
    let pck_crl_issuer_chain = issuer_chain(document, &answer, &["SGX-PCK-CRL-Issuer-Chain"])?;
    let pck_crl = revocation_list(document, answer, now)?;

    let document = Document::RootCrl;
    let root_url =
        if base == INTEL_PCS { INTEL_ROOT_CRL.to_owned() } else { url("sgx", "rootcacrl") };
    let answer = get(http, document, &root_url, DOCUMENT_BYTES).await?;
    let root_ca_crl = revocation_list(document, answer, now)?;

    let expires = [&tcb_info, &qe_identity].map(|json| date(json, "nextUpdate"));
    let expires =
        expires.into_iter().chain([&pck_crl, &root_ca_crl].map(|it| pem::next_update(it)));
    let expires = expires.flatten().min().unwrap_or(Timestamp::EPOCH);
    let collateral = QuoteCollateralV3 {
        pck_crl_issuer_chain,
        root_ca_crl,
        pck_crl,
        tcb_info_issuer_chain,
        tcb_info,
        tcb_info_signature,
        qe_identity_issuer_chain,
        qe_identity,
        qe_identity_signature,
        pck_certificate_chain: None,
    };
    let problem = "cannot be written as JSON";
    let endorsements = serde_json::to_vec(&collateral)
        .map_err(|_| FetchError::Form { document: Document::TcbInfo, problem })?;
    Ok(Fetched { endorsements: endorsements.into(), expires })
}

/// The chain of whoever signed the document, from the first of `names` that the answer has.
fn issuer_chain(
    document: Document,
    answer: &HttpAnswer,
    names: &[&str],
) -> Result<String, FetchError> {
    let form = |problem| FetchError::Form { document, problem };
    let header = names.iter().find_map(|name| answer.header(name));
    let header = header.ok_or_else(|| form("its issuer's chain is not in the answer's headers"))?;
    let chain = pem::percent_decoded(header);
    let chain = chain.ok_or_else(|| form("its issuer's chain is not percent-encoded text"))?;
    match pem::certificates(&chain) {
        Some(certificates) if certificates.len() >= 2 => Ok(chain),
        Some(_) | None => Err(form("its issuer's chain is not two certificates or more")),
    }
}

/// The signed part of a document, as text, and its signature. Intel signs the text as it stands;
/// keys keep their order and numbers their spelling on the way through the JSON library.
fn signed(
    document: Document,
    body: &[u8],
    field: &str,
    now: Timestamp,
) -> Result<(String, Vec<u8>), FetchError> {
    let form = |problem| FetchError::Form { document, problem };
    let outer: Value = serde_json::from_slice(body).map_err(|_| form("it is not JSON"))?;
    let inner = outer.get(field).filter(|inner| inner.is_object());
    let inner = inner.ok_or_else(|| form("the signed part is missing"))?.to_string();
    let signature = outer.get("signature").and_then(Value::as_str);
    let signature = signature.and_then(|text| hex::decode(text).ok());
    let signature = signature.filter(|bytes| bytes.len() == 64);
    let signature =
        signature.ok_or_else(|| form("its signature is not 64 bytes in hexadecimal"))?;
    match date(&inner, "nextUpdate") {
        None => Err(form("it does not say when it ends")),
        Some(end) if end <= now => Err(FetchError::Expired { document }),
        Some(_) if date(&inner, "issueDate").is_none() => Err(form("it does not say its date")),
        Some(_) => Ok((inner, signature)),
    }
}

fn check_tcb_info(tcb_info: &str, fmspc: &str) -> Result<(), FetchError> {
    let form = |problem| FetchError::Form { document: Document::TcbInfo, problem };
    let parsed: Value = serde_json::from_str(tcb_info).map_err(|_| form("it is not JSON"))?;
    let text = |name| parsed.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("id") != "TDX" {
        return Err(form("it is not for TDX"));
    }
    if !text("fmspc").eq_ignore_ascii_case(fmspc) {
        return Err(form("it is for another platform"));
    }
    Ok(())
}

fn date(json: &str, name: &str) -> Option<Timestamp> {
    let parsed: Value = serde_json::from_str(json).ok()?;
    crate::tdx::parse_date(parsed.get(name)?.as_str()?)
}

fn revocation_list(
    document: Document,
    answer: HttpAnswer,
    now: Timestamp,
) -> Result<Vec<u8>, FetchError> {
    let list = pem::binary(answer.body);
    match pem::next_update(&list) {
        None => {
            let problem = "it is no revocation list in DER that says when it ends";
            Err(FetchError::Form { document, problem })
        }
        Some(end) if end <= now => Err(FetchError::Expired { document }),
        Some(_) => Ok(list),
    }
}
