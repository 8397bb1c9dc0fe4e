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

/// What has passed so far. A verifier that refuses stops, so that the first check of
/// [`Step::all`] that is not in here is the one that refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    passed: Vec<Step>,
}

impl Trace {
    /// Notes that a check has passed.
    pub fn pass(&mut self, step: Step) {
        self.passed.push(step);
    }

    /// What has passed, in the order in which it was checked.
    pub fn passed(&self) -> &[Step] {
        &self.passed
    }
}
