//! Fetching from services that tests play: good ones, slow ones, lying ones.
//!
//! Owns: the fixtures as services would send them. Must not: use a network; the node's own tests do
//! the same over a socket.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex};

use cocoon_protocol::attest::SnpEndorsements;
use dcap_qvl::QuoteCollateralV3;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::certificate_table::{Guid, tests::table};
use super::*;
use crate::hardware::EndorsementShelf;

const QUOTE: &[u8] = include_bytes!("../../testdata/dcap/tdx_quote");
const COLLATERAL: &[u8] = include_bytes!("../../testdata/dcap/tdx_quote_collateral.json");
/// A day after the collateral was issued: 2025-06-20T10:16:03Z.
const THEN: Timestamp = Timestamp::from_unix_secs(1_750_414_563);
const PCS: &str = "http://pccs.test";
const KDS: &str = "http://kds.test";

/// A service in memory: what it answers under which URL, and what it was asked.
#[derive(Debug, Default)]
struct Service {
    answers: Mutex<BTreeMap<String, Result<HttpAnswer, HttpError>>>,
    asked: Mutex<Vec<String>>,
}

impl Service {
    fn set(&self, url: &str, answer: Result<HttpAnswer, HttpError>) {
        self.answers.lock().unwrap().insert(url.to_owned(), answer);
    }

    fn change(&self, url: &str, change: impl FnOnce(&mut HttpAnswer)) {
        change(self.answers.lock().unwrap().get_mut(url).unwrap().as_mut().unwrap());
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Http for Service {
    fn get<'a>(&'a self, url: &'a str, _: usize) -> HttpFuture<'a> {
        self.asked.lock().unwrap().push(url.to_owned());
        let found = self.answers.lock().unwrap().get(url).cloned();
        let missing = HttpAnswer { status: 404, ..HttpAnswer::default() };
        Box::pin(ready(found.unwrap_or(Ok(missing))))
    }
}

fn good(body: impl Into<Vec<u8>>, headers: &[(&str, &str)]) -> Result<HttpAnswer, HttpError> {
    let encode = |text: &str| text.replace('%', "%25").replace('\n', "%0A").replace(' ', "%20");
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), encode(value)));
    Ok(HttpAnswer { status: 200, headers: headers.collect(), body: body.into() })
}

const TCB: &str = "http://pccs.test/tdx/certification/v4/tcb?fmspc=B0C06F000000&update=standard";
const QE: &str = "http://pccs.test/tdx/certification/v4/qe/identity?update=standard";
const PCK_CRL: &str = "http://pccs.test/sgx/certification/v4/pckcrl?ca=platform&encoding=der";
const ROOT_CRL: &str = "http://pccs.test/sgx/certification/v4/rootcacrl";

/// Intel's documents for the fixture, as a cache of Intel's service sends them.
fn intel() -> Service {
    let it: QuoteCollateralV3 = serde_json::from_slice(COLLATERAL).unwrap();
    let service = Service::default();
    let signed = |field: &str, json: &str, signature: &[u8]| {
        format!("{{\"{field}\":{json},\"signature\":\"{}\"}}", hex::encode(signature))
    };
    service.set(
        TCB,
        good(
            signed("tcbInfo", &it.tcb_info, &it.tcb_info_signature),
            &[("TCB-Info-Issuer-Chain", &it.tcb_info_issuer_chain)],
        ),
    );
    service.set(
        QE,
        good(
            signed("enclaveIdentity", &it.qe_identity, &it.qe_identity_signature),
            &[("sgx-enclave-identity-issuer-chain", &it.qe_identity_issuer_chain)],
        ),
    );
    service
        .set(PCK_CRL, good(it.pck_crl, &[("SGX-PCK-CRL-Issuer-Chain", &it.pck_crl_issuer_chain)]));
    service.set(ROOT_CRL, good(hex::encode(it.root_ca_crl), &[]));
    service
}

fn tdx() -> RawEvidence {
    let evidence = Evidence::Tdx { quote: QUOTE.into() };
    RawEvidence { evidence, certificates: Bytes::new() }
}

fn sources() -> Sources {
    Sources { pcs: PCS.to_owned(), kds: KDS.to_owned() }
}

async fn fetch_tdx(service: &Service) -> Result<Fetched, FetchError> {
    fetch(service, &sources(), &tdx(), THEN).await
}

#[tokio::test]
async fn intels_documents_become_the_collateral_that_verifies_the_quote() {
    let fetched = fetch_tdx(&intel()).await.unwrap();
    let expected: QuoteCollateralV3 = serde_json::from_slice(COLLATERAL).unwrap();
    let got: QuoteCollateralV3 = serde_json::from_slice(&fetched.endorsements).unwrap();
    assert_eq!(got, QuoteCollateralV3 { pck_certificate_chain: None, ..expected });
    // The real verifier is content with what came over the wire.
    let verified =
        crate::tdx::verify(false, QUOTE, &fetched.endorsements, &crate::tdx::Root::intel(), THEN);
    assert!(verified.is_ok());
    assert_eq!(Some(fetched.expires), crate::tdx::collateral_expires(&fetched.endorsements));
}

#[tokio::test]
async fn intels_own_service_is_asked_where_intel_has_each_document() {
    let service = Service::default();
    let refused = fetch(&service, &Sources::default(), &tdx(), THEN).await.unwrap_err();
    assert_eq!(refused, FetchError::Unknown { document: Document::TcbInfo });
    let from_pccs = intel();
    for (url, at_intel) in [
        (TCB, TCB.replace(PCS, INTEL_PCS)),
        (QE, QE.replace(PCS, INTEL_PCS)),
        (PCK_CRL, PCK_CRL.replace(PCS, INTEL_PCS)),
        (ROOT_CRL, INTEL_ROOT_CRL.to_owned()),
    ] {
        service.set(&at_intel, from_pccs.answers.lock().unwrap()[url].clone());
    }
    // As people write it.
    for pcs in [INTEL_PCS.to_owned(), format!("{INTEL_PCS}/sgx/certification/v4/")] {
        let sources = Sources { pcs, ..Sources::default() };
        assert!(fetch(&service, &sources, &tdx(), THEN).await.is_ok());
    }
}

#[tokio::test]
async fn a_service_that_refuses_is_told_from_one_that_is_away() {
    let document = Document::QeIdentity;
    let status = |status: u16, headers: &[(&str, &str)]| {
        good("", headers).map(|answer| HttpAnswer { status, ..answer })
    };
    let limited = |seconds: Option<u64>| FetchError::RateLimited {
        document,
        retry_after: seconds.map(Millis::from_secs),
    };
    let timed_out = FetchError::Http { document, source: HttpError::TimedOut };
    let cases = [
        (status(404, &[]), FetchError::Unknown { document }),
        (status(429, &[]), limited(None)),
        (status(429, &[("Retry-After", "90")]), limited(Some(90))),
        (status(429, &[("Retry-After", "999999999")]), limited(Some(6 * 3600))),
        (status(429, &[("Retry-After", "tomorrow")]), limited(None)),
        (status(503, &[]), FetchError::Status { document, status: 503 }),
        (
            status(302, &[("Location", "http://elsewhere")]),
            FetchError::Status { document, status: 302 },
        ),
        (Err(HttpError::TimedOut), timed_out),
    ];
    for (answer, expected) in cases {
        let service = intel();
        service.set(QE, answer);
        assert_eq!(fetch_tdx(&service).await, Err(expected));
    }
    let service = intel();
    service.set(QE, good(vec![b' '; 200_000], &[]));
    let source = HttpError::TooLong { limit: 131_072 };
    assert_eq!(fetch_tdx(&service).await, Err(FetchError::Http { document, source }));
}

#[tokio::test]
async fn what_is_not_the_document_is_refused_by_its_form() {
    type Change = Box<dyn FnOnce(&mut HttpAnswer)>;
    let replace = |from: &'static str, to: &'static str| -> Change {
        Box::new(move |answer: &mut HttpAnswer| {
            let text = String::from_utf8(answer.body.clone()).unwrap();
            assert!(text.contains(from), "{from}");
            answer.body = text.replace(from, to).into_bytes();
        })
    };
    let cut = || -> Change { Box::new(|answer| answer.body.truncate(answer.body.len() / 2)) };
    let garbage = || -> Change { Box::new(|answer| answer.body = b"<html>".to_vec()) };
    let headless = || -> Change { Box::new(|answer| answer.headers.clear()) };
    let chain = |value: &'static str| -> Change {
        Box::new(move |answer| answer.headers[0].1 = value.to_owned())
    };
    let cases: Vec<(&str, Change, &str)> = vec![
        (TCB, garbage(), "it is not JSON"),
        (TCB, cut(), "it is not JSON"),
        (TCB, replace("\"tcbInfo\":", "\"other\":"), "the signed part is missing"),
        (
            TCB,
            replace("\"signature\":\"", "\"signature\":\"zz"),
            "its signature is not 64 bytes in hexadecimal",
        ),
        (TCB, replace("\"id\":\"TDX\"", "\"id\":\"SGX\""), "it is not for TDX"),
        (
            TCB,
            replace("\"fmspc\":\"B0C06F000000\"", "\"fmspc\":\"000000000000\""),
            "it is for another platform",
        ),
        (TCB, replace("nextUpdate", "mextUpdate"), "it does not say when it ends"),
        (QE, replace("issueDate", "issuedAte"), "it does not say its date"),
        (QE, headless(), "its issuer's chain is not in the answer's headers"),
        (QE, chain("%"), "its issuer's chain is not percent-encoded text"),
        (QE, chain("none"), "its issuer's chain is not two certificates or more"),
        (PCK_CRL, garbage(), "it is no revocation list in DER that says when it ends"),
        (PCK_CRL, cut(), "it is no revocation list in DER that says when it ends"),
        (PCK_CRL, headless(), "its issuer's chain is not in the answer's headers"),
        (ROOT_CRL, garbage(), "it is no revocation list in DER that says when it ends"),
    ];
    for (url, change, expected) in cases {
        let service = intel();
        service.change(url, change);
        match fetch_tdx(&service).await {
            Err(FetchError::Form { problem, .. }) => assert_eq!(problem, expected, "{url}"),
            other => panic!("{url}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn documents_that_have_ended_are_not_taken() {
    // The first to end of the fixture's four documents, a month after it was made.
    let late = Timestamp::from_unix_secs(THEN.as_unix_secs() + 40 * 24 * 3600);
    let refused = fetch(&intel(), &sources(), &tdx(), late).await.unwrap_err();
    assert_eq!(refused, FetchError::Expired { document: Document::TcbInfo });
}

#[tokio::test]
async fn evidence_without_a_platform_asks_nobody() {
    let service = intel();
    for evidence in [
        Evidence::Tdx { quote: Bytes::from_static(b"no quote") },
        Evidence::Snp { report: Bytes::from_static(b"no report") },
        Evidence::None,
    ] {
        let raw = RawEvidence { evidence, certificates: Bytes::new() };
        let refused = fetch(&service, &sources(), &raw, THEN).await.unwrap_err();
        assert!(matches!(refused, FetchError::Evidence { .. }), "{refused}");
    }
    assert!(service.asked().is_empty());
}

/// A report of a chip, as far as fetching looks at it.
fn report(version: u8, (family, model): (u8, u8), chip: &[u8], tcb: [u8; 8], keys: u8) -> Bytes {
    let mut report = vec![0; 1184];
    report[0] = version;
    report[0x48] = keys;
    report[0x180..0x188].copy_from_slice(&tcb);
    (report[0x188], report[0x189]) = (family, model);
    report[0x1a0..0x1a0 + chip.len()].copy_from_slice(chip);
    report.into()
}

fn snp(report: Bytes) -> RawEvidence {
    RawEvidence { evidence: Evidence::Snp { report }, certificates: Bytes::new() }
}

fn certificate() -> rcgen::Certificate {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.not_after = date_time_ymd(2031, 1, 1);
    parameters.self_signed(&KeyPair::generate().unwrap()).unwrap()
}

/// AMD's documents for one family; the revocation list is Intel's, which has the same form.
fn amd(key: &str, product: &str) -> (Service, rcgen::Certificate) {
    let it: QuoteCollateralV3 = serde_json::from_slice(COLLATERAL).unwrap();
    let (ask, ark) = (certificate(), certificate());
    let service = Service::default();
    let base = format!("{KDS}/{key}/v1/{product}");
    service.set(&format!("{base}/cert_chain"), good(ask.pem() + &ark.pem(), &[]));
    service.set(&format!("{base}/crl"), good(it.root_ca_crl, &[]));
    (service, ask)
}

#[tokio::test]
async fn amds_certificate_is_asked_for_by_chip_and_firmware() {
    let chip = [0xab; 64];
    let level = [3, 0, 0, 0, 0, 0, 8, 115];
    let long = hex::encode(chip);
    let short = hex::encode(&chip[..8]);
    let milan = format!("/vcek/v1/Milan/{long}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115");
    let genoa = milan.replace("Milan", "Genoa");
    let turin =
        format!("/vcek/v1/Turin/{short}?fmcSPL=03&blSPL=01&teeSPL=02&snpSPL=04&ucodeSPL=09");
    let turin_level = [3, 1, 2, 4, 0, 0, 0, 9];
    let cases: [(&str, Bytes, &[&String]); 6] = [
        ("Milan", report(2, (0, 0), &chip, level, 0), &[&milan]),
        ("Genoa", report(2, (0, 0), &chip, level, 0), &[&milan, &genoa]),
        ("Milan", report(3, (0x19, 0x01), &chip, level, 0), &[&milan]),
        ("Genoa", report(3, (0x19, 0x11), &chip, level, 0), &[&genoa]),
        ("Genoa", report(5, (0x19, 0xa0), &chip, level, 0), &[&genoa]),
        ("Turin", report(3, (0x1a, 0x02), &chip[..8], turin_level, 0), &[&turin]),
    ];
    for (product, report, asked) in cases {
        let (service, ask) = amd("vcek", product);
        let vcek = certificate();
        let own = asked.last().unwrap();
        service.set(&format!("{KDS}{own}"), good(vcek.der().to_vec(), &[]));
        let fetched = fetch(&service, &sources(), &snp(report), THEN).await.unwrap();
        let parts = SnpEndorsements::from_bytes(&fetched.endorsements).unwrap();
        assert_eq!((&parts.vek[..], &parts.ask[..]), (&vcek.der()[..], &ask.der()[..]));
        assert_eq!(Some(fetched.expires), pem::next_update(&parts.crl));
        let urls = service.asked();
        let expected: Vec<_> = asked.iter().map(|path| format!("{KDS}{path}")).collect();
        assert_eq!(urls[..urls.len() - 2], expected);
    }
}

#[tokio::test]
async fn a_report_whose_key_amd_does_not_give_out_says_why() {
    let chip = [0xab; 64];
    let cases = [
        (report(3, (0x19, 1), &[], [0; 8], 0), "the host hides the chip's identity (MASK_CHIP_ID)"),
        (
            report(3, (0x19, 1), &chip, [0; 8], 7 << 2),
            "the report is signed by no key that AMD certifies",
        ),
        (
            report(3, (0x1a, 0x50), &chip, [0; 8], 0),
            "the processor's family is not known to this program",
        ),
        (
            report(3, (0x19, 1), &chip, [0; 8], 1 << 2),
            "it is signed by a VLEK, and the host hands in no certificate for it",
        ),
    ];
    for (report, problem) in cases {
        let (service, _) = amd("vcek", "Milan");
        let refused = fetch(&service, &sources(), &snp(report), THEN).await;
        assert_eq!(refused, Err(FetchError::Evidence { problem }));
        assert!(service.asked().is_empty());
    }
}

#[tokio::test]
async fn the_hosts_table_brings_vleks_and_stands_in_for_a_service_that_is_away() {
    let own = certificate().der().to_vec();
    let chip = [0xab; 64];
    for (guid, keys, key) in [(Guid::Vlek, 1 << 2, "vlek"), (Guid::Vcek, 0, "vcek")] {
        let (service, _) = amd(key, "Milan");
        let mut raw = snp(report(3, (0x19, 1), &chip, [0; 8], keys));
        raw.certificates = table(&[(guid, &own)]).into();
        let fetched = fetch(&service, &sources(), &raw, THEN).await.unwrap();
        let parts = SnpEndorsements::from_bytes(&fetched.endorsements).unwrap();
        assert_eq!(parts.vek, own);
    }
    // Without a table the service's own answer is the reason.
    let (service, _) = amd("vcek", "Milan");
    let raw = snp(report(3, (0x19, 1), &chip, [0; 8], 0));
    let refused = fetch(&service, &sources(), &raw, THEN).await;
    assert_eq!(refused, Err(FetchError::Unknown { document: Document::Vcek }));
}

#[tokio::test]
async fn amds_documents_have_a_form_too() {
    let raw = snp(report(3, (0x19, 1), &[0xab; 64], [0; 8], 0));
    let vcek = format!(
        "{KDS}/vcek/v1/Milan/{}?blSPL=00&teeSPL=00&snpSPL=00&ucodeSPL=00",
        hex::encode([0xab; 64])
    );
    let chain = format!("{KDS}/vcek/v1/Milan/cert_chain");
    let crl = format!("{KDS}/vcek/v1/Milan/crl");
    let whole = || {
        let (service, _) = amd("vcek", "Milan");
        service.set(&vcek, good(certificate().der().to_vec(), &[]));
        service
    };
    assert!(fetch(&whole(), &sources(), &raw, THEN).await.is_ok());
    for (url, document, problem) in [
        (&vcek, Document::Vcek, "it is no certificate in DER"),
        (&chain, Document::CertificateChain, "it is not two certificates in PEM"),
        (&crl, Document::AmdCrl, "it is no revocation list in DER that says when it ends"),
    ] {
        for garbage in [&b"<html>"[..], b""] {
            let service = whole();
            service.set(url, good(garbage, &[]));
            let refused = fetch(&service, &sources(), &raw, THEN).await;
            assert_eq!(refused, Err(FetchError::Form { document, problem }));
        }
    }
    let late = Timestamp::from_unix_secs(1_950_000_000);
    let refused = fetch(&whole(), &sources(), &raw, late).await;
    assert_eq!(refused, Err(FetchError::Expired { document: Document::AmdCrl }));
}

fn options(service: &Arc<Service>, folder: &std::path::Path) -> KeeperOptions {
    let http: Arc<dyn Http> = Arc::<Service>::clone(service);
    let (sources, folder) = (sources(), folder.to_owned());
    KeeperOptions { http, sources, file: None, folder, shelf: EndorsementShelf::default() }
}

fn keeper(service: &Arc<Service>, folder: &std::path::Path) -> (Keeper, EndorsementShelf) {
    let options = options(service, folder);
    let shelf = options.shelf.clone();
    (Keeper::new(options), shelf)
}

#[tokio::test]
async fn the_last_good_endorsements_outlive_a_service_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let service = Arc::new(intel());
    let (mut first, shelf) = keeper(&service, folder.path());
    assert_eq!(first.restore(&tdx(), THEN), None);
    let fetched = first.refresh(&tdx(), THEN).await.unwrap();
    assert_eq!((fetched.origin, fetched.again), (Origin::Service, Millis::from_secs(24 * 3600)));
    let good = shelf.endorsements();

    service.set(TCB, Err(HttpError::TimedOut));
    for failures in 1..4 {
        let error = first.refresh(&tdx(), THEN).await.unwrap_err();
        assert_eq!(first.wait(&error, 0), Millis::from_secs(60 << (failures - 1)));
    }
    assert_eq!(shelf.endorsements(), good);

    let (restarted, shelf) = keeper(&service, folder.path());
    let kept = restarted.restore(&tdx(), THEN).unwrap();
    assert_eq!((kept.origin, kept.expires), (Origin::Cache, fetched.expires));
    assert_eq!(shelf.endorsements(), good);
    assert_eq!(restarted.restore(&tdx(), fetched.expires), None);

    // A service that is back is forgiven; one that asks for patience gets it.
    service.set(TCB, intel().answers.lock().unwrap()[TCB].clone());
    first.refresh(&tdx(), THEN).await.unwrap();
    service.set(
        TCB,
        Ok(HttpAnswer {
            status: 429,
            headers: vec![("Retry-After".to_owned(), "7200".to_owned())],
            body: Vec::new(),
        }),
    );
    let error = first.refresh(&tdx(), THEN).await.unwrap_err();
    assert_eq!(first.wait(&error, u16::MAX), Millis::from_secs(7200));
}

#[tokio::test]
async fn an_operators_file_stands_in_for_the_services() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collateral.json");
    let service = Arc::new(Service::default());
    let options = KeeperOptions { file: Some(path.clone()), ..options(&service, folder.path()) };
    let shelf = options.shelf.clone();
    let mut keeper = Keeper::new(options);
    let missing = keeper.refresh(&tdx(), THEN).await.unwrap_err();
    assert!(missing.to_string().contains("cannot be read"), "{missing}");
    std::fs::write(&path, "{}").unwrap();
    let form = KeeperError::FileForm { path: path.clone() };
    assert_eq!(keeper.refresh(&tdx(), THEN).await, Err(form.clone()));
    std::fs::write(&path, COLLATERAL).unwrap();
    let read = keeper.refresh(&tdx(), THEN).await.unwrap();
    assert_eq!(read.origin, Origin::File);
    assert_eq!(shelf.endorsements(), COLLATERAL);
    assert_eq!(keeper.refresh(&tdx(), read.expires).await, Err(form));
    assert!(service.asked().is_empty());

    let parts = SnpEndorsements {
        vek: certificate().der().to_vec().into(),
        ask: certificate().der().to_vec().into(),
        crl: serde_json::from_slice::<QuoteCollateralV3>(COLLATERAL).unwrap().root_ca_crl.into(),
    };
    std::fs::write(&path, parts.to_bytes()).unwrap();
    let raw = snp(report(3, (0x19, 1), &[0xab; 64], [0; 8], 0));
    assert_eq!(keeper.refresh(&raw, THEN).await.unwrap().origin, Origin::File);
}
