//! Which checks evidence has passed, in the order in which it meets them.
//!
//! Owns: the checks' names and order. Must not: decide; whoever checks says what has passed.

use crate::attest::evidence::EvidenceKind;

/// One check of an attestation. Each covers what a user can change by one thing: another policy,
/// other endorsements, another image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The policy trusts whoever makes such evidence.
    Trust,
    /// The evidence and what vouches for it: form, guest attributes that no verifier accepts, dates,
    /// signatures, revocation, up to a root.
    Signatures,
    /// The guest's memory is closed to its host.
    Guest,
    /// The evidence is bound to what the verifier asked.
    Binding,
    /// The policy has rules for this vendor.
    Rules,
    /// The guest's privilege level (SEV-SNP).
    Privilege,
    /// The platform's firmware and standing.
    Firmware,
    /// The age of what vouches for the evidence.
    Age,
    /// The platform's configuration and identity.
    Platform,
    /// The image that runs.
    Image,
    /// What maintainers whom the policy follows have withdrawn.
    Advisories,
    /// The vendor library's own appraisal by the same rules (TDX).
    SecondOpinion,
}

impl Step {
    /// What evidence of this kind meets, in order.
    pub const fn all(kind: EvidenceKind) -> &'static [Self] {
        use Step::*;
        match kind {
            EvidenceKind::None => &[Trust],
            EvidenceKind::Tdx | EvidenceKind::SimulatedTdx => &[
                Trust,
                Signatures,
                Guest,
                Binding,
                Rules,
                Firmware,
                Age,
                Platform,
                Image,
                Advisories,
                SecondOpinion,
            ],
            EvidenceKind::Snp | EvidenceKind::SimulatedSnp => &[
                Trust, Signatures, Guest, Binding, Rules, Privilege, Firmware, Age, Platform,
                Image, Advisories,
            ],
        }
    }

    /// The check in a word, as a verdict shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Signatures => "evidence",
            Self::Guest => "guest",
            Self::Binding => "binding",
            Self::Rules => "rules",
            Self::Privilege => "privilege",
            Self::Firmware => "firmware",
            Self::Age => "age",
            Self::Platform => "platform",
            Self::Image => "image",
            Self::Advisories => "advisories",
            Self::SecondOpinion => "second opinion",
        }
    }
}

/// One check of a GPU's evidence, cut as [`Step`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GpuStep {
    /// The policy trusts whoever makes such evidence.
    Trust,
    /// The report's form.
    Report,
    /// The device's certificates: form, dates, roles, signatures, up to a root.
    Certificates,
    /// The report's signature.
    Signature,
    /// The firmware that holds the report's key: its mode, and that the report names no other.
    Firmware,
    /// No data crosses switches in the clear.
    Links,
    /// The report was made for what the verifier asked.
    Binding,
    /// The policy has rules for GPUs.
    Rules,
    /// The policy names none of the chain's keys as revoked.
    Revocation,
    /// The family.
    Architecture,
    /// The report names its firmware, or need not.
    FirmwareNamed,
    /// The versions and measurements that the policy lists.
    State,
    /// No GPU is shown twice.
    Distinct,
}

impl GpuStep {
    /// What every GPU's evidence meets, in order.
    pub const ALL: [Self; 13] = [
        Self::Trust,
        Self::Report,
        Self::Certificates,
        Self::Signature,
        Self::Firmware,
        Self::Links,
        Self::Binding,
        Self::Rules,
        Self::Revocation,
        Self::Architecture,
        Self::FirmwareNamed,
        Self::State,
        Self::Distinct,
    ];

    /// The check in a word or two, as a verdict shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Report => "report",
            Self::Certificates => "certificates",
            Self::Signature => "signature",
            Self::Firmware => "firmware",
            Self::Links => "links",
            Self::Binding => "binding",
            Self::Rules => "rules",
            Self::Revocation => "revocation",
            Self::Architecture => "architecture",
            Self::FirmwareNamed => "firmware named",
            Self::State => "state",
            Self::Distinct => "distinct",
        }
    }
}

/// What has passed so far. A verifier that refuses stops, so that the first check of [`Step::all`] or
/// [`GpuStep::ALL`] that is not in here is the one that refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace<S = Step> {
    passed: Vec<S>,
}

impl<S> Default for Trace<S> {
    fn default() -> Self {
        Self { passed: Vec::new() }
    }
}

impl<S> Trace<S> {
    /// Notes that a check has passed.
    pub fn pass(&mut self, step: S) {
        self.passed.push(step);
    }

    /// What has passed, in the order in which it was checked.
    pub fn passed(&self) -> &[S] {
        &self.passed
    }
}
