//! From the key that signed a report to AMD's root, and from that key to chip and firmware.
//!
//! Owns: which certificates make a chain, and what binds the last one to a report.
//! Must not: look at revocation; a chain without its list is worth nothing, and the caller has it.

use cocoon_protocol::attest::{
    PlatformRule, Refusal, SnpCheck, SnpEndorsements, SnpProduct, SnpSigningKey, SnpTcb,
};
use cocoon_protocol::units::Timestamp;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, asn1::OctetStringRef};

use crate::snp::certificate::SnpCertificate;
use crate::snp::report::{self, Report};
use crate::snp::{Asvk, Roots, invalid};

// AMD's extensions (57230, "VCEK certificate").
const BOOT_LOADER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
const TEE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
const SNP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
const MICROCODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
const FMC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
/// Which provider of machines a VLEK was made for.
const PROVIDER_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");

/// Root, intermediate and signing certificate, put together but not verified.
pub(super) struct Chain<'a> {
    pub(super) product: SnpProduct,
    pub(super) key: SnpSigningKey,
    pub(super) ark: &'a SnpCertificate,
    pub(super) ask: SnpCertificate,
    pub(super) vek: SnpCertificate,
}

impl<'a> Chain<'a> {
    /// The chain for `report`, which ends at whichever of `roots` the intermediate names.
    pub(super) fn read(
        report: &Report,
        endorsements: &SnpEndorsements,
        roots: &'a Roots,
        asvk: &Asvk,
    ) -> Result<Self, Refusal> {
        let ask = SnpCertificate::read(&endorsements.ask)?;
        let vek = SnpCertificate::read(&endorsements.vek)?;
        let (product, ark) = roots.named(ask.issuer()).ok_or(Refusal::UntrustedRoot)?;
        let key = report.key();
        // AMD's root also stands behind the keys that providers of machines hold. Only the very
        // intermediate that the policy lists may vouch for one.
        let listed = asvk.get(&product).is_some_and(|listed| listed == ask.der());
        if listed != (key == SnpSigningKey::Vlek) {
            return Err(match key {
                SnpSigningKey::Vlek => Refusal::PlatformNotAllowed { rule: PlatformRule::Vlek },
                SnpSigningKey::Vcek => invalid(SnpCheck::SigningKey),
            });
        }
        Ok(Self { product, key, ark, ask, vek })
    }

    /// Dates, authority and signatures of all three. The root's own signature was checked when it was
    /// loaded.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), Refusal> {
        for certificate in [self.ark, &self.ask, &self.vek] {
            certificate.check_dates(now)?;
        }
        self.ask.check_authority()?;
        self.vek.check_no_authority()?;
        self.ask.check_issuer(self.ark)?;
        self.vek.check_issuer(&self.ask)
    }

    /// When the first of them ends.
    pub(super) fn expires(&self) -> Timestamp {
        self.ark.expires().min(self.ask.expires()).min(self.vek.expires())
    }

    /// The signing key was derived for the firmware that the report claims and, unless it is a
    /// provider's, on the chip that the report names. Without this, an old firmware could report a new
    /// level.
    pub(super) fn check_binding(&self, report: &Report) -> Result<(), Refusal> {
        let reported = report::tcb(report.reported_tcb(), self.product);
        if reported.is_none() || reported != self.certified_tcb() {
            return Err(invalid(SnpCheck::TcbBinding));
        }
        match self.key {
            SnpSigningKey::Vcek if !self.is_of_chip(&report.chip_id()) => {
                Err(invalid(SnpCheck::ChipBinding))
            }
            SnpSigningKey::Vlek if self.vek.extension(PROVIDER_ID).is_none() => {
                Err(invalid(SnpCheck::SigningKey))
            }
            SnpSigningKey::Vcek | SnpSigningKey::Vlek => Ok(()),
        }
    }

    pub(super) fn certified_tcb(&self) -> Option<SnpTcb> {
        let version = |id| u8::from_der(self.vek.extension(id)?).ok();
        Some(SnpTcb {
            fmc: if self.product.has_fmc() { version(FMC)? } else { 0 },
            boot_loader: version(BOOT_LOADER)?,
            tee: version(TEE)?,
            snp: version(SNP)?,
            microcode: version(MICROCODE)?,
        })
    }

    /// The chip's identity in the certificate: 64 bytes, or Turin's eight. Most certificates have the
    /// bytes as they are, some inside an octet string.
    pub(super) fn hardware_id(&self) -> Option<&[u8]> {
        let length = match self.product {
            SnpProduct::Milan | SnpProduct::Genoa => 64,
            SnpProduct::Turin => 8,
        };
        let value = self.vek.extension(HARDWARE_ID)?;
        if value.len() == length {
            return Some(value);
        }
        let wrapped = <&OctetStringRef>::from_der(value).ok()?.as_bytes();
        (wrapped.len() == length).then_some(wrapped)
    }

    /// The report fills the field up with zeros. A masked identity is zeros alone, and says nothing
    /// about the chip.
    fn is_of_chip(&self, chip: &[u8; 64]) -> bool {
        let Some(id) = self.hardware_id() else { return false };
        let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        chip.split_at_checked(id.len())
            .is_some_and(|(named, rest)| named == id && zeros(rest) && !zeros(named))
    }
}
