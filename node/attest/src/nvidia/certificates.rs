//! A device's certificates: from the key that signs reports up to a pinned root.
//!
//! Owns: the chain's form and length, names, roles, dates, signatures, and the pin.
//! Must not: trust a name before the signature above it holds. What NVIDIA revoked is not asked here:
//! NVIDIA answers that online only; a policy can name certificates that are no longer trusted.

use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cocoon_protocol::attest::{GpuArchitecture, GpuRefusal};
use cocoon_protocol::units::Timestamp;
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode as _, Encode as _, Reader as _, SliceReader, Tag, Tagged as _};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::time::Time;

use crate::nvidia::firmware::Firmware;

/// The report's key, the device, its provisioner, its family, the root: on every GPU since Hopper.
const CHAIN_LENGTH: usize = 5;

const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
/// The firmware's identity as Hopper has it, under the identifier that TCG gave to `DiceTcbInfo`.
const HOPPER_FIRMWARE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.5.4.1");
/// `DiceTcbInfo` as Blackwell has it, one arc further down.
const BLACKWELL_FIRMWARE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.5.4.1.1");

const fn malformed(part: &'static str) -> GpuRefusal {
    GpuRefusal::Certificates { part }
}

/// A root that devices may be certified by.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    /// What the root says: its key, name and dates. The signature beside it is checked, not pinned.
    body: Vec<u8>,
    /// Before the family's name in the subjects below the root.
    vendor: &'static str,
}

impl Root {
    /// "NVIDIA Device Identity CA".
    pub(crate) fn nvidia() -> Option<Self> {
        const CERTIFICATE: &[u8] = include_bytes!("../../roots/nvidia/device_identity_ca.der");
        Self::new(CERTIFICATE, "NVIDIA")
    }

    /// A root from its certificate.
    pub(crate) fn new(certificate: &[u8], vendor: &'static str) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        Some(Self { body: certificate.tbs_certificate().to_der().ok()?, vendor })
    }
}

/// One certificate, read exactly.
struct Link {
    certificate: Certificate,
    /// SHA-256 of its SubjectPublicKeyInfo.
    key: [u8; 32],
    body: Vec<u8>,
}

/// A chain that holds up to its root.
pub(super) struct Chain {
    links: Vec<Link>,
    pub(super) architecture: GpuArchitecture,
    /// When the first certificate ends.
    pub(super) expires: Timestamp,
}

impl Chain {
    /// Verifies `chain`, DER certificates one behind the other, under `root` at `now`.
    pub(super) fn verify(chain: &[u8], root: &Root, now: Timestamp) -> Result<Self, GpuRefusal> {
        let links = read_links(chain)?;
        let pinned = links.last().is_some_and(|top| top.body == root.body);
        if !pinned {
            return Err(GpuRefusal::UntrustedRoot);
        }
        let expires = check_dates(&links, now)?;
        check_roles(&links)?;
        for (depth, link) in links.iter().enumerate() {
            // The root is its own issuer.
            let issuer = links.get(depth.saturating_add(1)).unwrap_or(link);
            link.verify_by(issuer, depth)?;
        }
        // Only now do the names mean something.
        let architecture = architecture(&links, root)?;
        Ok(Self { links, architecture, expires })
    }

    /// Verifies a report's signature by the key of the first certificate.
    pub(super) fn verify_report(&self, signed: &[u8], signature: &[u8]) -> Result<(), GpuRefusal> {
        let signer = self.links.first().ok_or(GpuRefusal::ReportSignature)?;
        signer
            .verify(&ECDSA_P384_SHA384_FIXED, signed, signature)
            .ok_or(GpuRefusal::ReportSignature)
    }

    /// The firmware that the first certificate's key was made for.
    pub(super) fn firmware(&self) -> Result<Firmware, GpuRefusal> {
        let signer = self.links.first().ok_or(malformed("firmware identity"))?;
        let place = match self.architecture {
            GpuArchitecture::Hopper => HOPPER_FIRMWARE,
            GpuArchitecture::Blackwell => BLACKWELL_FIRMWARE,
        };
        let content = signer.extension(place).ok_or(malformed("firmware identity"))?;
        Firmware::parse(content, self.architecture)
    }

    /// SHA-256 of each certificate's SubjectPublicKeyInfo.
    pub(super) fn keys(&self) -> Vec<[u8; 32]> {
        self.links.iter().map(|link| link.key).collect()
    }
}

fn read_links(chain: &[u8]) -> Result<Vec<Link>, GpuRefusal> {
    let form = malformed("encoding");
    let mut reader = SliceReader::new(chain).map_err(|_| form.clone())?;
    let mut links = Vec::with_capacity(CHAIN_LENGTH);
    let mut count = 0_usize;
    while !reader.is_finished() {
        let one = reader.tlv_bytes().map_err(|_| form.clone())?;
        count = count.saturating_add(1);
        // Counted to the end for the reason's sake; read only as far as it may go.
        if count <= CHAIN_LENGTH {
            links.push(Link::read(one)?);
        }
    }
    if count != CHAIN_LENGTH {
        return Err(GpuRefusal::ChainLength { count, expected: CHAIN_LENGTH });
    }
    Ok(links)
}

impl Link {
    fn read(der: &[u8]) -> Result<Self, GpuRefusal> {
        let certificate = Certificate::from_der(der).map_err(|_| malformed("encoding"))?;
        // One spelling for one certificate: what was read is what is there, bit for bit, so that the
        // signature is checked over the very bytes that came.
        if certificate.to_der().ok().as_deref() != Some(der) {
            return Err(malformed("encoding"));
        }
        let body = certificate.tbs_certificate();
        if body.version() != Version::V3
            || body.signature() != certificate.signature_algorithm()
            || body.signature().oid != ECDSA_WITH_SHA384
            || body.signature().parameters.is_some()
        {
            return Err(malformed("signature algorithm"));
        }
        let key = body.subject_public_key_info();
        let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.decode_as().ok());
        if key.algorithm.oid != EC_PUBLIC_KEY || curve != Some(SECP384R1) {
            return Err(malformed("key algorithm"));
        }
        let key = key.to_der().map_err(|_| malformed("encoding"))?;
        let body = body.to_der().map_err(|_| malformed("encoding"))?;
        let key = Sha256::digest(key).into();
        let link = Self { certificate, key, body };
        link.check_extensions()?;
        Ok(link)
    }

    /// No extension twice, and none that is critical and not understood (RFC 5280 §4.2).
    fn check_extensions(&self) -> Result<(), GpuRefusal> {
        let all = self.certificate.tbs_certificate().extensions();
        let all: Vec<_> = all.into_iter().flatten().collect();
        for (position, extension) in all.iter().enumerate() {
            let id = extension.extn_id;
            let understood = id == BASIC_CONSTRAINTS || id == KEY_USAGE;
            if extension.critical && !understood {
                return Err(malformed("critical extension"));
            }
            if all.iter().take(position).any(|before| before.extn_id == id) {
                return Err(malformed("repeated extension"));
            }
        }
        Ok(())
    }

    fn extension(&self, id: ObjectIdentifier) -> Option<&[u8]> {
        let all = self.certificate.tbs_certificate().extensions();
        let mut found = all.into_iter().flatten().filter(|extension| extension.extn_id == id);
        found.next().map(|extension| extension.extn_value.as_bytes())
    }

    /// Whether it is marked as an authority, and what its key is for.
    fn constraints(&self) -> Result<(bool, Option<KeyUsage>), GpuRefusal> {
        let form = |_| malformed("constraints");
        let basic = self.extension(BASIC_CONSTRAINTS).map(BasicConstraints::from_der);
        let usage = self.extension(KEY_USAGE).map(KeyUsage::from_der);
        let authority = basic.transpose().map_err(form)?.is_some_and(|found| found.ca);
        Ok((authority, usage.transpose().map_err(form)?))
    }

    /// Whether it may issue certificates.
    fn is_authority(&self) -> Result<bool, GpuRefusal> {
        let (authority, usage) = self.constraints()?;
        Ok(authority && usage.is_some_and(|usage| usage.key_cert_sign()))
    }

    /// Whether its key signs reports and no certificates.
    fn is_signer(&self) -> Result<bool, GpuRefusal> {
        let (authority, usage) = self.constraints()?;
        let signs = usage.is_some_and(|usage| usage.digital_signature() && !usage.key_cert_sign());
        Ok(!authority && signs)
    }

    fn common_name(&self) -> Option<String> {
        common_name(self.certificate.tbs_certificate().subject())
    }

    fn verify_by(&self, issuer: &Self, depth: usize) -> Result<(), GpuRefusal> {
        let refusal = GpuRefusal::CertificateSignature { depth };
        let named = self.certificate.tbs_certificate().issuer();
        if named != issuer.certificate.tbs_certificate().subject() {
            return Err(GpuRefusal::Issuer { depth });
        }
        let signature = self.certificate.signature().as_bytes().ok_or_else(|| refusal.clone())?;
        issuer.verify(&ECDSA_P384_SHA384_ASN1, &self.body, signature).ok_or(refusal)
    }

    fn verify(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Option<()> {
        let key = self.certificate.tbs_certificate().subject_public_key_info();
        let key = key.subject_public_key.as_bytes()?;
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).ok()
    }
}

fn check_dates(links: &[Link], now: Timestamp) -> Result<Timestamp, GpuRefusal> {
    let seconds = |time: Time| Timestamp::from_unix_secs(time.to_unix_duration().as_secs());
    let mut expires = Timestamp::MAX;
    for (depth, link) in links.iter().enumerate() {
        let validity = link.certificate.tbs_certificate().validity();
        let (begin, end) = (seconds(validity.not_before), seconds(validity.not_after));
        if now < begin || end < now {
            return Err(GpuRefusal::CertificateExpired { depth });
        }
        expires = expires.min(end);
    }
    Ok(expires)
}

fn check_roles(links: &[Link]) -> Result<(), GpuRefusal> {
    for (depth, link) in links.iter().enumerate() {
        match depth.checked_sub(1) {
            None if !link.is_signer()? => return Err(GpuRefusal::KeyUsage),
            Some(issued) if !link.is_authority()? => {
                return Err(GpuRefusal::NotAnAuthority { depth: issued });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The family, by the name that the root gave: `NVIDIA GH100 Identity`. The report's key must belong to
/// the processor that attests the GPU (GSP) of that family; other parts of the same device, and the
/// switches between devices, have keys under the same root.
fn architecture(links: &[Link], root: &Root) -> Result<GpuArchitecture, GpuRefusal> {
    let [signer, .., family, _root] = links else {
        return Err(malformed("encoding"));
    };
    let name = family.common_name().unwrap_or_default();
    let found = name
        .strip_prefix(root.vendor)
        .and_then(|rest| rest.strip_prefix(' ')?.strip_suffix(" Identity"))
        .unwrap_or(&name);
    let architecture: GpuArchitecture =
        found.parse().map_err(|_| GpuRefusal::UnknownArchitecture { found: printable(found) })?;
    let name = signer.common_name().unwrap_or_default();
    let own = name.strip_prefix(architecture.as_str());
    if own.is_some_and(|rest| rest.starts_with(' ') && rest.ends_with(" GSP FMC LF")) {
        Ok(architecture)
    } else {
        Err(GpuRefusal::NotTheAttestationProcessor)
    }
}

/// The only common name of a subject.
fn common_name(name: &Name) -> Option<String> {
    let mut found = name.iter().filter(|attribute| attribute.oid == COMMON_NAME);
    let (Some(attribute), None) = (found.next(), found.next()) else {
        return None;
    };
    let value = AnyRef::from(&attribute.value);
    let plain = matches!(value.tag(), Tag::Utf8String | Tag::PrintableString);
    std::str::from_utf8(value.value()).ok().filter(|_| plain).map(str::to_owned)
}

/// A stranger's text, cut to what may be shown.
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(40).collect()
}

/// Certificates in PEM, as NVIDIA's driver returns a GPU's, in the form of `GpuEvidence::chain`: DER, one
/// behind the other. `None` for anything else than certificates and, behind them, zeros.
pub fn gpu_chain_from_pem(pem: &[u8]) -> Option<Vec<u8>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    // The driver fills its buffer up with zeros.
    let text = std::str::from_utf8(pem).ok()?.trim_end_matches('\0');
    let mut der = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (body, behind) = rest.strip_prefix(BEGIN)?.split_once(END)?;
        let base64: String = body.split_ascii_whitespace().collect();
        der.extend(STANDARD.decode(base64).ok()?);
        rest = behind.trim_start();
    }
    (!der.is_empty()).then_some(der)
}
