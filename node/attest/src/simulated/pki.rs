//! The public test PKI. **NO SECURITY: every private key follows from a constant in this file.**
//!
//! Owns: root, platform CA, platform certificate, TCB signer, quoting enclave's key, and collateral.
//! Must not: look like anything else; every subject says COCOON DEV, and the root NOT A TEE.

use std::sync::OnceLock;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use cocoon_protocol::attest::TcbStatus;
use cocoon_protocol::units::{Millis, Timestamp};
use dcap_qvl::QuoteCollateralV3;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams,
    CustomExtension, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SerialNumber, date_time_ymd,
};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::attester::QuoteError;
use crate::simulated::der;

/// The subject of the test root.
pub const ROOT_COMMON_NAME: &str = "COCOON DEV ROOT - NOT A TEE";

const PLATFORM_CA_COMMON_NAME: &str = "COCOON DEV PCK Platform CA";

/// What every private key is derived from. Publishing it is intended.
const SEED: &[u8] = b"COCOON DEV PKI - NO SECURITY - ANYBODY CAN SIGN WITH THESE KEYS";

const PPID: [u8; 16] = [0xde; 16];
const FMSPC: [u8; 6] = [0xde, 0xad, 0, 0, 0, 1];
const CPU_SVN: u8 = 5;
const PCE_SVN: u8 = 11;
/// Signer of the simulated quoting enclave.
pub(super) const QE_MRSIGNER: [u8; 32] = [0xde; 32];
pub(super) const QE_PRODUCT: u16 = 2;
pub(super) const QE_SVN: u16 = 4;

/// The PKI. Signatures are randomised, so the certificates differ between processes in their
/// signatures; keys and names do not, and these make the root.
#[derive(Debug)]
pub(crate) struct Pki {
    /// The root certificate, DER.
    pub(crate) root: Vec<u8>,
    /// Platform certificate, platform CA and root, PEM.
    pub(crate) platform_chain: String,
    /// Signs the quoting enclave's report.
    pub(crate) platform_key: EcdsaKeyPair,
    /// Signs quotes.
    pub(crate) attestation_key: EcdsaKeyPair,
    /// Signs TCB info and QE identity.
    pub(crate) tcb_key: EcdsaKeyPair,
    tcb_chain: String,
    crl_chain: String,
    root_crl: Vec<u8>,
    platform_crl: Vec<u8>,
}

/// The PKI of this process.
pub(crate) fn shared() -> Result<&'static Pki, QuoteError> {
    static SHARED: OnceLock<Result<Pki, QuoteError>> = OnceLock::new();
    SHARED
        .get_or_init(|| Pki::new().map_err(|_| QuoteError::Simulation))
        .as_ref()
        .map_err(Clone::clone)
}

/// A key that the whole world knows.
fn public_private_key(role: &str) -> Result<EcdsaKeyPair, QuoteError> {
    let scalar = Sha256::new().chain_update(SEED).chain_update(role).finalize();
    let public = PrivateKey::from_private_key(&ECDH_P256, &scalar)
        .map_err(|_| QuoteError::Simulation)?
        .compute_public_key()
        .map_err(|_| QuoteError::Simulation)?;
    EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &scalar,
        public.as_ref(),
    )
    .map_err(|_| QuoteError::Simulation)
}

/// The same key for the certificate library.
fn issuing_key(role: &str) -> Result<KeyPair, QuoteError> {
    let document = public_private_key(role)?.to_pkcs8v1().map_err(|_| QuoteError::Simulation)?;
    KeyPair::from_pkcs8_der_and_sign_algo(&document.as_ref().into(), &PKCS_ECDSA_P256_SHA256)
        .map_err(|_| QuoteError::Simulation)
}

/// `r ‖ s` over `message`.
pub(crate) fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Result<Vec<u8>, QuoteError> {
    let signature = key.sign(&SystemRandom::new(), message).map_err(|_| QuoteError::Simulation)?;
    Ok(signature.as_ref().to_vec())
}

fn parameters(name: &str, authority: bool) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.not_before = date_time_ymd(2024, 1, 1);
    parameters.not_after = date_time_ymd(2049, 1, 1);
    if authority {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    } else {
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    }
    Ok(parameters)
}

fn revocation_list(
    issuer: &Issuer<'_, KeyPair>,
    issued: OffsetDateTime,
    ends: OffsetDateTime,
    revoked: &[SerialNumber],
) -> Result<Vec<u8>, rcgen::Error> {
    let entry = |serial: &SerialNumber| RevokedCertParams {
        serial_number: serial.clone(),
        revocation_time: issued,
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: issued,
        next_update: ends,
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(list.signed_by(issuer)?.der().to_vec())
}

fn empty_revocation_list(issuer: &Issuer<'_, KeyPair>) -> Result<Vec<u8>, rcgen::Error> {
    revocation_list(issuer, date_time_ymd(2024, 1, 1), date_time_ymd(2049, 1, 1), &[])
}

/// Who issues revocation lists.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum ListIssuer {
    Root,
    PlatformCa,
}

/// A revocation list of `issuer`, for tests; the certificates that it names by their serial numbers.
#[cfg(test)]
pub(crate) fn revocation_list_of(
    issuer: ListIssuer,
    ends: OffsetDateTime,
    revoked: &[&[u8]],
) -> Vec<u8> {
    let (name, role) = match issuer {
        ListIssuer::Root => (ROOT_COMMON_NAME, "root"),
        ListIssuer::PlatformCa => (PLATFORM_CA_COMMON_NAME, "platform-ca"),
    };
    let issuer = Issuer::new(parameters(name, true).unwrap(), issuing_key(role).unwrap());
    let revoked: Vec<_> =
        revoked.iter().map(|serial| SerialNumber::from(serial.to_vec())).collect();
    revocation_list(&issuer, date_time_ymd(2024, 1, 1), ends, &revoked).unwrap()
}

impl Pki {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let root_parameters = parameters(ROOT_COMMON_NAME, true)?;
        let root_key = issuing_key("root")?;
        let root = root_parameters.self_signed(&root_key)?;
        let root_issuer = Issuer::new(root_parameters, root_key);

        let ca_parameters = parameters(PLATFORM_CA_COMMON_NAME, true)?;
        let ca_key = issuing_key("platform-ca")?;
        let ca = ca_parameters.signed_by(&ca_key, &root_issuer)?;
        let ca_issuer = Issuer::new(ca_parameters, ca_key);

        let mut platform_parameters = parameters("COCOON DEV PCK", false)?;
        platform_parameters.custom_extensions.push(CustomExtension::from_oid_content(
            &[1, 2, 840, 113_741, 1, 13, 1],
            der::sgx_extension(PPID, FMSPC, CPU_SVN, PCE_SVN),
        ));
        let platform = platform_parameters.signed_by(&issuing_key("platform")?, &ca_issuer)?;
        let tcb_signer = parameters("COCOON DEV TCB Signing", false)?
            .signed_by(&issuing_key("tcb-signer")?, &root_issuer)?;

        let chain = |parts: &[&Certificate]| parts.iter().map(|c| c.pem()).collect::<String>();
        Ok(Self {
            platform_chain: chain(&[&platform, &ca, &root]),
            tcb_chain: chain(&[&tcb_signer, &root]),
            crl_chain: chain(&[&ca, &root]),
            root_crl: empty_revocation_list(&root_issuer)?,
            platform_crl: empty_revocation_list(&ca_issuer)?,
            root: root.der().to_vec(),
            platform_key: public_private_key("platform")?,
            attestation_key: public_private_key("attestation")?,
            tcb_key: public_private_key("tcb-signer")?,
        })
    }

    /// Collateral that gives the simulated platform `status`, issued at `issued` for 30 days.
    pub(crate) fn collateral(
        &self,
        status: TcbStatus,
        evaluation: u32,
        issued: Timestamp,
    ) -> Result<QuoteCollateralV3, QuoteError> {
        let dates = serde_json::json!({
            "issueDate": rfc3339(issued)?,
            "nextUpdate": rfc3339(issued.after(COLLATERAL_LIFETIME))?,
            "tcbEvaluationDataNumber": evaluation,
        });
        let tcb_info = with(&dates, tcb_info(status));
        let qe_identity = with(&dates, qe_identity());
        Ok(QuoteCollateralV3 {
            pck_crl_issuer_chain: self.crl_chain.clone(),
            root_ca_crl: self.root_crl.clone(),
            pck_crl: self.platform_crl.clone(),
            tcb_info_issuer_chain: self.tcb_chain.clone(),
            tcb_info_signature: sign(&self.tcb_key, tcb_info.as_bytes())?,
            tcb_info,
            qe_identity_issuer_chain: self.tcb_chain.clone(),
            qe_identity_signature: sign(&self.tcb_key, qe_identity.as_bytes())?,
            qe_identity,
            pck_certificate_chain: None,
        })
    }
}

/// As long as Intel's.
const COLLATERAL_LIFETIME: Millis = Millis::from_secs(30 * 24 * 3600);

fn rfc3339(at: Timestamp) -> Result<String, QuoteError> {
    let seconds = i64::try_from(at.as_unix_secs()).map_err(|_| QuoteError::Simulation)?;
    let at = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| QuoteError::Simulation)?;
    let (date, time) = (at.date(), at.time());
    Ok(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    ))
}

fn with(dates: &serde_json::Value, mut document: serde_json::Value) -> String {
    if let (Some(document), Some(dates)) = (document.as_object_mut(), dates.as_object()) {
        document.extend(dates.clone());
    }
    document.to_string()
}

fn components(svn: u8) -> serde_json::Value {
    vec![serde_json::json!({ "svn": svn }); 16].into()
}

/// Intel's TCB info, version 3, with one level that the simulated platform meets.
fn tcb_info(status: TcbStatus) -> serde_json::Value {
    serde_json::json!({
        "id": "TDX",
        "version": 3,
        "fmspc": hex::encode_upper(FMSPC),
        "pceId": "0000",
        "tcbType": 0,
        "tdxModule": {
            "mrsigner": "00".repeat(48),
            "attributes": "0000000000000000",
            "attributesMask": "FFFFFFFFFFFFFFFF",
        },
        "tdxModuleIdentities": [],
        "tcbLevels": [{
            "tcb": {
                "sgxtcbcomponents": components(CPU_SVN),
                "pcesvn": PCE_SVN,
                "tdxtcbcomponents": components(0),
            },
            "tcbDate": "2024-01-01T00:00:00Z",
            "tcbStatus": status.as_str(),
            "advisoryIDs": [],
        }],
    })
}

/// Intel's QE identity, version 2.
fn qe_identity() -> serde_json::Value {
    serde_json::json!({
        "id": "TD_QE",
        "version": 2,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "00".repeat(16),
        "attributesMask": "FF".repeat(16),
        "mrsigner": hex::encode_upper(QE_MRSIGNER),
        "isvprodid": QE_PRODUCT,
        "tcbLevels": [{
            "tcb": { "isvsvn": QE_SVN },
            "tcbDate": "2024-01-01T00:00:00Z",
            "tcbStatus": "UpToDate",
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_cert::Certificate as Parsed;
    use x509_cert::der::{Decode as _, Encode as _};

    #[test]
    fn the_root_is_the_same_in_every_process_and_says_what_it_is() {
        let (one, other) = (Pki::new().unwrap(), Pki::new().unwrap());
        let identity = |pki: &Pki| {
            let root = Parsed::from_der(&pki.root).unwrap();
            let body = root.tbs_certificate();
            let key = body.subject_public_key_info().to_der().unwrap();
            (body.subject().to_string(), hex::encode(Sha256::digest(key)))
        };
        assert_eq!(identity(&one), identity(&other));
        // Golden: another value here means that nodes of two builds no longer understand each other.
        let key = "171ade4244d440240cf71038a0f82daa1a45ef925ea4d5dca67105c8db2499cd".to_owned();
        assert_eq!(identity(&one), ("CN=COCOON DEV ROOT - NOT A TEE".to_owned(), key));
    }
}
