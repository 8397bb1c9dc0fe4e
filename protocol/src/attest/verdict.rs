//! The outcome of an attestation: what was proved, or which check failed.
//!
//! Owns: the typed reasons, each in words that a user can act on.
//! Must not: decide; `appraise` and the channel do.

use crate::attest::evidence::EvidenceKind;
use crate::attest::gpu::{GpuAppraisal, GpuRefusal};
use crate::attest::measurement::{Measured, Register};
use crate::attest::policy::PolicyId;
use crate::attest::snp::SnpCheck;
use crate::attest::tdx::TcbStatus;
use crate::attest::tier::Tier;
use crate::identity::NodeId;
use crate::units::{Millis, Timestamp};

/// What a consumer has verified about the provider at the other end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The provider.
    pub peer: NodeId,
    /// The tier that this session has.
    pub tier: Tier,
    /// The evidence came from a simulated TEE: shown wherever the tier is shown.
    pub simulated: bool,
    /// The kind of evidence.
    pub kind: EvidenceKind,
    /// SHA-256 of the session's evidence.
    pub evidence_digest: [u8; 32],
    /// The policy's name for the image; `None` in tier `open`.
    pub image: Option<String>,
    /// What was measured; `None` in tier `open`.
    pub measurements: Option<Measured>,
    /// What was verified about its GPUs, in their order; empty where none was asked for.
    pub gpus: Vec<GpuAppraisal>,
    /// SHA-256 of the manifest of what the provider serves. Bound to the quote; in tier `open` a
    /// signed claim.
    pub model_manifest: Option<[u8; 32]>,
    /// SHA-256 of the capabilities in the offer that the session belongs to, bound likewise.
    pub capabilities: [u8; 32],
    /// The policy that judged.
    pub policy: PolicyId,
    /// When it judged.
    pub attested_at: Timestamp,
    /// From when on no job may rely on it.
    pub expires: Timestamp,
}

impl Verdict {
    /// Whether a job may still be sent on the strength of it.
    pub fn is_current(&self, now: Timestamp) -> bool {
        now < self.expires
    }
}

/// Which rule of the policy a platform breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformRule {
    /// `allow_smt`
    Smt,
    /// `allow_dynamic_platform`
    DynamicPlatform,
    /// `allow_cached_keys`
    CachedKeys,
    /// `allowed_ppid`
    Unlisted,
    /// `products`
    Product,
    /// `vlek`
    Vlek,
    /// `require_single_socket`
    SingleSocket,
    /// `require_ciphertext_hiding`
    CiphertextHiding,
    /// `require_alias_check`
    AliasCheck,
    /// `allowed_chip_id`
    UnlistedChip,
}

impl PlatformRule {
    /// The policy's key.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Smt => "allow_smt",
            Self::DynamicPlatform => "allow_dynamic_platform",
            Self::CachedKeys => "allow_cached_keys",
            Self::Unlisted => "allowed_ppid",
            Self::Product => "products",
            Self::Vlek => "vlek",
            Self::SingleSocket => "require_single_socket",
            Self::CiphertextHiding => "require_ciphertext_hiding",
            Self::AliasCheck => "require_alias_check",
            Self::UnlistedChip => "allowed_chip_id",
        }
    }
}

/// Which of a guest's firmware levels is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcbMoment {
    /// The level that the report claims.
    Now,
    /// The level when the guest was launched.
    Launch,
}

impl std::fmt::Display for TcbMoment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Now => "platform's",
            Self::Launch => "guest's launch",
        })
    }
}

/// Which check refused a provider. No prompt byte was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Bytes that are no attestation record, certificate extension or quote.
    #[error("the provider's evidence is malformed")]
    Malformed,
    /// No quote where the tier needs one.
    #[error("the provider has no TEE evidence; ask for tier `open` to use it nevertheless")]
    EvidenceMissing,
    /// GPU evidence was asked for, and none came.
    #[error("the provider showed no GPU evidence, which this tier or the policy demands")]
    GpuEvidenceMissing,
    /// One of the provider's GPUs failed a check.
    #[error("the provider's GPU {position} is refused: {reason}")]
    Gpu {
        /// Which one, counted from 0.
        position: usize,
        /// Which check it failed.
        reason: Box<GpuRefusal>,
    },
    /// Proved less than was asked for.
    #[error("the provider proved tier `{earned}`; `{asked}` was asked for")]
    TierTooLow {
        /// What the consumer asked for.
        asked: Tier,
        /// What was proved.
        earned: Tier,
    },
    /// A simulated TEE under a policy for real ones.
    #[error("the provider's TEE is simulated; only a policy with `trust = \"dev\"` accepts that")]
    SimulatedNotAllowed,
    /// The quote's chain ends at nobody whom the policy trusts.
    #[error("the quote was not certified by a trusted vendor")]
    UntrustedRoot,
    /// A signature, a certificate chain, a revocation list or the quoting enclave did not verify.
    #[error("the quote or its collateral failed verification ({check})")]
    QuoteInvalid {
        /// Which part failed.
        check: QuoteCheck,
    },
    /// A SEV-SNP report, its certificates or its revocation list did not verify.
    #[error("the SEV-SNP report or its endorsements failed verification ({check})")]
    ReportInvalid {
        /// Which check.
        check: SnpCheck,
    },
    /// The vendor withdrew a certificate of the chain.
    #[error("the vendor has revoked the {certificate} certificate that the report depends on")]
    Revoked {
        /// Which one.
        certificate: &'static str,
    },
    /// A revocation list beyond its date.
    #[error("the revocation list has expired; the provider must refresh it")]
    RevocationListExpired,
    /// A revocation list older than the policy allows.
    #[error(
        "the revocation list is {} d old, the policy allows {} d; the provider must refresh it",
        age.get() / 86_400_000, limit.get() / 86_400_000
    )]
    RevocationListTooOld {
        /// How old it is.
        age: Millis,
        /// How old it may be.
        limit: Millis,
    },
    /// Firmware below the policy's floor.
    #[error(
        "the {moment} firmware level has {component} {found}, the policy wants at least {minimum}"
    )]
    TcbTooLow {
        /// Which level.
        moment: TcbMoment,
        /// Which component, as the policy names it.
        component: &'static str,
        /// Its version.
        found: u8,
        /// What the policy wants.
        minimum: u8,
    },
    /// The report was asked for by software of too little privilege.
    #[error("the report comes from privilege level {vmpl} of the guest, the policy allows {limit}")]
    VmplTooLow {
        /// The level; higher numbers are less privileged.
        vmpl: u32,
        /// What the policy allows.
        limit: u32,
    },
    /// An old version of a listed guest.
    #[error("the guest is of version {found}, the policy wants at least {minimum}")]
    GuestVersionTooLow {
        /// Its version.
        found: u32,
        /// What the policy wants.
        minimum: u32,
    },
    /// The guest's memory can be read by its host.
    #[error("the provider's guest runs in debug mode: its host can read everything")]
    Debug,
    /// The guest can be moved to another machine.
    #[error("the provider's guest may be migrated to another machine")]
    Migratable,
    /// The image is not listed.
    #[error(
        "the provider runs an image that the policy does not list ({register} {value}{})",
        .differs.map(|register| format!(", known but for {register}")).unwrap_or_default()
    )]
    UnknownMeasurement {
        /// The register that stands for the image: TDX's `mrtd`, SEV-SNP's `measurement`.
        register: &'static str,
        /// What was measured into it.
        value: Register,
        /// The first field that differs from a listed image of which the register matches.
        differs: Option<&'static str>,
    },
    /// The platform's firmware or configuration is not good enough.
    #[error("the provider's platform is {status} by Intel's account, which the policy refuses")]
    TcbOutOfDate {
        /// Intel's word for it.
        status: TcbStatus,
    },
    /// An advisory that the policy names.
    #[error("advisory {id} applies to the provider's platform, and the policy rejects it")]
    Advisory {
        /// Intel's identifier.
        id: String,
    },
    /// Collateral beyond its date.
    #[error("the collateral that vouches for the quote has expired; the provider must refresh it")]
    CollateralExpired,
    /// Collateral older than the policy allows.
    #[error(
        "the collateral is {} h old, the policy allows {} h; the provider must refresh it",
        age.get() / 3_600_000, limit.get() / 3_600_000
    )]
    CollateralTooOld {
        /// How old it is.
        age: Millis,
        /// How old it may be.
        limit: Millis,
    },
    /// Collateral of a superseded evaluation.
    #[error("the collateral is of TCB evaluation {number}, the policy wants at least {minimum}")]
    CollateralOutdated {
        /// What the provider sent.
        number: u32,
        /// What the policy wants.
        minimum: u32,
    },
    /// The platform itself.
    #[error("the provider's platform is refused by the policy's `{}`", rule.key())]
    PlatformNotAllowed {
        /// By which rule.
        rule: PlatformRule,
    },
    /// A maintainer whom the policy follows withdrew it.
    #[error("the provider's {what} was withdrawn by maintainer {maintainer}: {reason}")]
    Withdrawn {
        /// What was withdrawn.
        what: &'static str,
        /// Why, in the maintainer's words.
        reason: String,
        /// Whose list says so.
        maintainer: NodeId,
    },
    /// The policy wants a list in force, and there is none.
    #[error(
        "the policy follows the advisories of {maintainer}, and no list of theirs is in force; \
         check the policy's `source` and the network"
    )]
    AdvisoriesMissing {
        /// Whose list is missing.
        maintainer: NodeId,
    },
    /// The quote is bound to something else than this session: a replay, a relay or a diversion.
    #[error("the quote is not bound to this session: it may be replayed or relayed")]
    NotFresh,
    /// The identity quote does not cover this certificate.
    #[error("the certificate's identity quote does not cover the certificate")]
    IdentityNotBound,
    /// Somebody else answered.
    #[error("peer {presented} answered instead of the dialled {dialled}")]
    WrongPeer {
        /// Who was dialled.
        dialled: NodeId,
        /// Whom the certificate names.
        presented: NodeId,
    },
    /// The answer is not signed by the dialled node, or it signed another session.
    #[error("the dialled node did not sign this session: it may be replayed or relayed")]
    NotSigned,
    /// The certificate belongs to another offer of the same node.
    #[error("the session belongs to another offer than the chosen one; look the provider up again")]
    OfferMismatch,
    /// The certificate has another form than a session certificate.
    #[error("the provider's session certificate is not acceptable in form")]
    CertificateInvalid,
    /// Beyond its dates, or before them.
    #[error("the provider's session certificate is outside its validity; check both clocks")]
    CertificateExpired,
    /// Valid for too long to be a session certificate.
    #[error("the provider's session certificate is valid for longer than 6 hours")]
    CertificateTooLong,
    /// No answer in time.
    #[error("the provider did not answer the attestation request in time")]
    TimedOut,
    /// The provider could not make evidence.
    #[error("the provider reported that it cannot attest at the moment; try another")]
    Unable,
}

/// Which part of a quote or its collateral did not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteCheck {
    /// The collateral is not in the form that the verifier knows.
    CollateralForm,
    /// A signature, a chain, a revocation list, the quoting enclave's identity or the TCB match.
    Chain,
    /// The guest's attributes: reserved bits, or protections switched off.
    Attributes,
    /// The platform's standing, by the vendor library's own appraisal.
    Appraisal,
}

impl std::fmt::Display for QuoteCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CollateralForm => "form of the collateral",
            Self::Chain => "signatures, revocation and TCB level",
            Self::Attributes => "guest attributes",
            Self::Appraisal => "platform appraisal",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_sentences() {
        let (register, value) = ("mrtd", Register::from_bytes([0xab; 48]));
        let differs = Some("rtmr2");
        let known = Refusal::UnknownMeasurement { register, value, differs }.to_string();
        assert!(known.ends_with("known but for rtmr2)"), "{known}");
        let (age, limit) = (Millis::from_secs(200 * 3600), Millis::from_secs(168 * 3600));
        assert_eq!(
            Refusal::CollateralTooOld { age, limit }.to_string(),
            "the collateral is 200 h old, the policy allows 168 h; the provider must refresh it"
        );
    }
}
