//! The policy's rules for AMD SEV-SNP.
//!
//! Owns: their form, their validation, and what they add to the policy's identity.
//! Must not: judge claims; the appraisal beside it does.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::attest::measurement::Register;
use crate::attest::policy::{LIST_ENTRIES, PolicyError, Section};
use crate::attest::snp::claims::{HostData, SnpProduct, SnpTcb};
use crate::units::Millis;

/// A bound that keeps the age of a revocation list meaningful: older than this is never right.
pub(in crate::attest) const LONGEST_CRL_AGE: Millis = Millis::from_secs(366 * 24 * 3600);
/// The lowest privilege of a guest.
const LOWEST_VMPL: u32 = 3;

/// A listed guest image. One entry per number and model of vCPUs: both are measured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpImage {
    /// What people call it.
    pub name: String,
    /// The launch digest.
    pub measurement: Register,
    /// How many vCPUs the digest is for: a note for people, the digest already covers it.
    #[serde(default)]
    pub vcpus: Option<u32>,
    /// Must be zero unless given: the host chose it, and the guest may act on it.
    #[serde(default)]
    pub host_data: Option<HostData>,
    /// Not compared unless given: an identity block adds a signature to what the digest pins.
    #[serde(default)]
    pub id_key_digest: Option<Register>,
    /// Not compared unless given.
    #[serde(default)]
    pub author_key_digest: Option<Register>,
    /// The lowest version of the guest that is accepted.
    #[serde(default)]
    pub min_guest_svn: u32,
}

/// The rules for AMD SEV-SNP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpRules {
    /// Accepted processor families.
    pub products: BTreeSet<SnpProduct>,
    /// The lowest firmware level of each accepted family, by component. It holds for the level that
    /// the report claims and, unless [`Self::min_launch_tcb`] says otherwise, for the level at the
    /// guest's launch.
    pub min_tcb: BTreeMap<SnpProduct, SnpTcb>,
    /// A lower floor for the level at launch: accepts guests that outlived an update of the firmware.
    pub min_launch_tcb: BTreeMap<SnpProduct, SnpTcb>,
    /// Intermediate certificates (ASVK, DER) that may vouch for keys which providers of machines load
    /// (VLEK) instead of the chip's own. **Empty denies**: such a report does not prove which chip ran.
    pub asvk: BTreeMap<SnpProduct, Vec<u8>>,
    /// The least privileged level of the guest that may attest; 0 is the most privileged.
    pub max_vmpl: u32,
    /// Revocation lists issued longer ago are refused, even before they expire.
    pub max_crl_age: Millis,
    /// Accept hyper-threading.
    pub allow_smt: bool,
    /// Demand that the guest's policy forbids more than one socket.
    pub require_single_socket: bool,
    /// Demand that the host cannot read the guest's ciphertext (against side channels on it).
    pub require_ciphertext_hiding: bool,
    /// Demand that the platform checked its memory for aliases (against BadRAM).
    pub require_alias_check: bool,
    /// The only chips accepted; empty for any, which is weaker.
    pub allowed_chip_id: Vec<[u8; 64]>,
    /// The images accepted. **Empty denies.**
    pub images: Vec<SnpImage>,
}

impl SnpRules {
    pub(in crate::attest) fn validate(&self) -> Result<(), PolicyError> {
        if self.products.is_empty() {
            return Err(PolicyError::NoProduct);
        }
        if let Some(&product) = self.products.iter().find(|p| !self.min_tcb.contains_key(p)) {
            return Err(PolicyError::NoMinimumTcb { product });
        }
        for (section, levels) in
            [("min_tcb", &self.min_tcb), ("min_launch_tcb", &self.min_launch_tcb)]
        {
            for (&product, level) in levels {
                self.listed(section, product)?;
                if level.fmc != 0 && !product.has_fmc() {
                    return Err(PolicyError::NoFmc { section, product });
                }
            }
        }
        for &product in self.asvk.keys() {
            self.listed("asvk", product)?;
        }
        if self.max_vmpl > LOWEST_VMPL {
            return Err(PolicyError::BadVmpl);
        }
        if self.max_crl_age == Millis::new(0) || self.max_crl_age > LONGEST_CRL_AGE {
            return Err(PolicyError::CrlAge);
        }
        let lists = [("images", self.images.len()), ("platforms", self.allowed_chip_id.len())];
        if let Some((what, _)) = lists.into_iter().find(|(_, length)| *length > LIST_ENTRIES) {
            return Err(PolicyError::TooMany { what, limit: LIST_ENTRIES });
        }
        let mut names = BTreeSet::new();
        for image in &self.images {
            let name = || image.name.clone();
            if image.measurement == Register::ZERO {
                let register = "measurement";
                return Err(PolicyError::ZeroRegister { image: name(), register });
            }
            if !names.insert(&image.name) {
                return Err(PolicyError::DuplicateImage { image: name() });
            }
        }
        Ok(())
    }

    fn listed(&self, section: &'static str, product: SnpProduct) -> Result<(), PolicyError> {
        if self.products.contains(&product) {
            Ok(())
        } else {
            Err(PolicyError::UnlistedProduct { section, product })
        }
    }

    pub(in crate::attest) fn append_to(&self, section: &mut Section) {
        section.list(self.products.iter().map(|product| product.as_str().as_bytes()));
        for levels in [&self.min_tcb, &self.min_launch_tcb] {
            section.count(levels.len());
            for (product, level) in levels {
                section.bytes(product.as_str().as_bytes());
                section.bytes(&level.components().map(|(_, version)| version));
            }
        }
        section.count(self.asvk.len());
        for (product, certificate) in &self.asvk {
            section.bytes(product.as_str().as_bytes());
            section.bytes(certificate);
        }
        section.number(self.max_vmpl);
        section.number(self.max_crl_age.get());
        section.flags([
            self.allow_smt,
            self.require_single_socket,
            self.require_ciphertext_hiding,
            self.require_alias_check,
        ]);
        section.list(self.allowed_chip_id.iter().map(|chip| &chip[..]));
        section.count(self.images.len());
        for image in &self.images {
            image.append_to(section);
        }
    }
}

impl SnpImage {
    fn append_to(&self, section: &mut Section) {
        section.bytes(self.name.as_bytes());
        section.bytes(self.measurement.as_bytes());
        section.list(self.vcpus.map(u32::to_be_bytes).iter().map(|count| &count[..]));
        section.bytes(self.host_data.unwrap_or(HostData::ZERO).as_bytes());
        for digest in [&self.id_key_digest, &self.author_key_digest] {
            section.list(digest.iter().map(|digest| &digest.as_bytes()[..]));
        }
        section.number(self.min_guest_svn);
    }
}

/// The rules as a person writes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::attest) struct SnpFile {
    products: BTreeSet<SnpProduct>,
    min_tcb: BTreeMap<SnpProduct, SnpTcb>,
    #[serde(default)]
    min_launch_tcb: BTreeMap<SnpProduct, SnpTcb>,
    #[serde(default)]
    vlek: bool,
    #[serde(default)]
    asvk: BTreeMap<SnpProduct, String>,
    #[serde(default)]
    max_vmpl: u32,
    #[serde(rename = "max_crl_age_d")]
    max_crl_age_days: u64,
    #[serde(default)]
    allow_smt: bool,
    #[serde(default)]
    require_single_socket: bool,
    #[serde(default)]
    require_ciphertext_hiding: bool,
    #[serde(default)]
    require_alias_check: bool,
    #[serde(default)]
    allowed_chip_id: Vec<String>,
    #[serde(default)]
    image: Vec<SnpImage>,
}

impl TryFrom<SnpFile> for SnpRules {
    type Error = PolicyError;

    fn try_from(file: SnpFile) -> Result<Self, PolicyError> {
        if file.vlek == file.asvk.is_empty() {
            return Err(PolicyError::VlekWithoutAsvk);
        }
        let asvk = file.asvk.into_iter().map(|(product, text)| {
            read_pem(&text)
                .map(|certificate| (product, certificate))
                .ok_or(PolicyError::BadAsvk { product })
        });
        let chips = file.allowed_chip_id.iter().map(|text| read_chip_id(text));
        Ok(Self {
            products: file.products,
            min_tcb: file.min_tcb,
            min_launch_tcb: file.min_launch_tcb,
            asvk: asvk.collect::<Result<_, _>>()?,
            max_vmpl: file.max_vmpl,
            max_crl_age: Millis::from_secs(file.max_crl_age_days.saturating_mul(86_400)),
            allow_smt: file.allow_smt,
            require_single_socket: file.require_single_socket,
            require_ciphertext_hiding: file.require_ciphertext_hiding,
            require_alias_check: file.require_alias_check,
            allowed_chip_id: chips.collect::<Option<_>>().ok_or(PolicyError::BadChipId)?,
            images: file.image,
        })
    }
}

/// 64 bytes, or Turin's eight, which a report pads with zeros.
fn read_chip_id(text: &str) -> Option<[u8; 64]> {
    let mut chip = [0; 64];
    let part = match text.len() {
        16 => chip.first_chunk_mut::<8>()?.as_mut_slice(),
        _ => chip.as_mut_slice(),
    };
    hex::decode_to_slice(text, part).ok()?;
    Some(chip)
}

/// The DER of the one certificate in a PEM text (RFC 7468), as AMD serves it.
fn read_pem(text: &str) -> Option<Vec<u8>> {
    let body = text
        .trim()
        .strip_prefix("-----BEGIN CERTIFICATE-----")?
        .strip_suffix("-----END CERTIFICATE-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok().filter(|der| !der.is_empty())
}

#[cfg(test)]
mod tests;
