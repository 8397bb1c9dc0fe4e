//! The verdict on GPUs outside of a session, check by check.
//!
//! Owns: the words for what a GPU shows and what the policy wants of it. Must not: check anything; what
//! passed and what refused comes from the verifier that sessions use.

use cocoon_protocol::attest::{
    GpuAppraisal, GpuClaims, GpuEvidenceKind, GpuNonce, GpuRefusal, GpuRules, GpuStep, Policy,
    Trace, Trust,
};

use super::{Check, course};

/// A verdict on one GPU.
#[derive(Clone, Debug)]
pub struct GpuExamination {
    /// What kind of evidence it is.
    pub kind: GpuEvidenceKind,
    /// Every check, in order.
    pub checks: Vec<Check>,
    /// What the policy found acceptable, or the first check that failed.
    pub outcome: Result<GpuAppraisal, GpuRefusal>,
}

/// What is seen of a GPU while it is judged.
#[derive(Debug, Default)]
pub(crate) struct GpuWitness {
    pub(crate) trace: Trace<GpuStep>,
    pub(crate) claims: Option<GpuClaims>,
}

/// What the verifier says of one GPU.
pub(crate) struct ExaminedGpu<'a> {
    pub(crate) kind: GpuEvidenceKind,
    pub(crate) policy: &'a Policy,
    pub(crate) witness: GpuWitness,
    /// What it had to be asked with, if that is known.
    pub(crate) nonce: Option<&'a GpuNonce>,
    pub(crate) outcome: Result<GpuAppraisal, GpuRefusal>,
}

impl ExaminedGpu<'_> {
    pub(crate) fn report(self) -> GpuExamination {
        let refusal = self.outcome.as_ref().err().map(ToString::to_string);
        let unbound = self.nonce.is_none().then_some(GpuStep::Binding);
        let passed = self.witness.trace.passed();
        let checks = course(&GpuStep::ALL, passed, unbound, refusal, |step| {
            (step.as_str(), self.found(step), self.wanted(step))
        });
        GpuExamination { kind: self.kind, checks, outcome: self.outcome }
    }

    fn found(&self, step: GpuStep) -> Option<String> {
        if step == GpuStep::Trust {
            return Some(self.kind.to_string());
        }
        let claims = self.witness.claims.as_ref()?;
        match step {
            GpuStep::Certificates => Some(format!("device {}", hex::encode(claims.device()))),
            GpuStep::Binding => Some(format!("nonce {}", hex::encode(claims.nonce))),
            GpuStep::Architecture => Some(claims.architecture.to_string()),
            GpuStep::FirmwareNamed => Some(if claims.names_firmware { "yes" } else { "no" }.into()),
            GpuStep::State => {
                let versions = state(&claims.driver, &claims.vbios);
                Some(match &self.outcome {
                    Ok(found) => format!("{versions}: {}", found.standing.as_str()),
                    Err(_) => versions,
                })
            }
            GpuStep::Trust
            | GpuStep::Report
            | GpuStep::Signature
            | GpuStep::Firmware
            | GpuStep::Links
            | GpuStep::Rules
            | GpuStep::Revocation
            | GpuStep::Distinct => None,
        }
    }

    fn wanted(&self, step: GpuStep) -> Option<String> {
        match (step, self.policy.trust()) {
            (GpuStep::Trust, Trust::Production) => return Some("a real GPU".to_owned()),
            (GpuStep::Trust, Trust::Dev) => return Some("a real or simulated GPU".to_owned()),
            (GpuStep::Rules, _) => return Some("[gpu] in the policy".to_owned()),
            (GpuStep::Binding, _) => {
                return self.nonce.map(|nonce| format!("nonce {}", hex::encode(nonce)));
            }
            (GpuStep::Links, _) => {
                return Some("no protected-PCIe mode, whose switches show nothing".to_owned());
            }
            (_, Trust::Production | Trust::Dev) => {}
        }
        wanted_by_rules(step, self.policy.gpu()?)
    }
}

fn wanted_by_rules(step: GpuStep, rules: &GpuRules) -> Option<String> {
    match step {
        GpuStep::Revocation => {
            let count = rules.revoked_keys.len();
            (count > 0).then(|| format!("none of {count} revoked keys in its chain"))
        }
        GpuStep::Architecture => Some(one_of(rules.architectures.iter().map(ToString::to_string))),
        GpuStep::FirmwareNamed => {
            Some(if rules.allow_missing_fwid { "yes or no" } else { "yes" }.to_owned())
        }
        GpuStep::State => {
            let golden = rules.golden.iter().map(|golden| state(&golden.driver, &golden.vbios));
            let only = rules.identity_only.iter().flat_map(|only| {
                only.drivers.iter().flat_map(|driver: &String| {
                    only.vbios.iter().map(move |vbios: &String| state(driver, vbios))
                })
            });
            Some(one_of(golden.chain(only)))
        }
        GpuStep::Trust
        | GpuStep::Report
        | GpuStep::Certificates
        | GpuStep::Signature
        | GpuStep::Firmware
        | GpuStep::Links
        | GpuStep::Binding
        | GpuStep::Rules
        | GpuStep::Distinct => None,
    }
}

fn state(driver: &str, vbios: &str) -> String {
    format!("driver {driver}, VBIOS {vbios}")
}

/// The choices, each once; a policy may list thousands.
fn one_of(choices: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 8;
    let mut choices: Vec<_> = choices.collect();
    choices.sort();
    choices.dedup();
    let more = choices.len().saturating_sub(SHOWN);
    choices.truncate(SHOWN);
    if choices.is_empty() {
        return "nothing: none is listed".to_owned();
    }
    let listed = choices.join(" or ");
    if more > 0 { format!("{listed} or {more} more") } else { listed }
}

#[cfg(test)]
mod tests;
