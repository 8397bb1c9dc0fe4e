//! A verdict with its reasons: every check that evidence meets, what was found and what is wanted.
//!
//! Owns: the words for values found and wanted. Must not: check anything; what passed and what refused
//! comes from the verifier that sessions use.

use cocoon_protocol::attest::{
    Appraisal, Claims, EvidenceKind, Measured, Policy, Refusal, SnpClaims, SnpRules, Step,
    TdxClaims, TdxRules, Tier, Trace, Trust,
};
use cocoon_protocol::units::Timestamp;
use serde::Serialize;

mod file;
mod gpus;

pub use file::{FileAppraisal, FileExamination};
pub use gpus::GpuExamination;
pub(crate) use gpus::{ExaminedGpu, GpuWitness};

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It holds.
    Passed,
    /// It does not hold: the evidence is refused.
    Failed,
    /// An earlier check refused.
    NotReached,
    /// Nothing to compare with was given.
    NotChecked,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which.
    pub check: &'static str,
    /// How it went.
    pub standing: Standing,
    /// What the evidence says; `None` while its signatures are not verified, and where there is
    /// nothing to say.
    pub found: Option<String>,
    /// What the policy wants.
    pub wanted: Option<String>,
    /// Why it was refused.
    pub reason: Option<String>,
}

/// How each of a verifier's steps went. It stops where it refuses, so that the first one that has not
/// passed is the one that `refusal` is about. The step `unbound` had nothing to compare with. `words` are
/// the step's name, what was found and what is wanted.
fn course<S: Copy + PartialEq>(
    steps: &[S],
    passed: &[S],
    unbound: Option<S>,
    mut refusal: Option<String>,
    words: impl Fn(S) -> (&'static str, Option<String>, Option<String>),
) -> Vec<Check> {
    let mut checks = Vec::with_capacity(steps.len());
    for step in steps {
        let (standing, reason) = if passed.contains(step) {
            let compared = unbound != Some(*step);
            (if compared { Standing::Passed } else { Standing::NotChecked }, None)
        } else if let Some(reason) = refusal.take() {
            (Standing::Failed, Some(reason))
        } else {
            (Standing::NotReached, None)
        };
        let (check, found, wanted) = words(*step);
        checks.push(Check { check, standing, found, wanted, reason });
    }
    checks
}

/// A verdict on evidence outside of a session.
#[derive(Clone, Debug)]
pub struct Examination {
    /// What kind of evidence it is.
    pub kind: EvidenceKind,
    /// Every check of that kind, in order.
    pub checks: Vec<Check>,
    /// What the policy found acceptable, or the first check that failed.
    pub outcome: Result<Appraisal, Refusal>,
    /// What was measured, once the signatures hold.
    pub measured: Option<Measured>,
}

/// What the verifier says of a piece of evidence.
pub(crate) struct Examined<'a> {
    pub(crate) kind: EvidenceKind,
    pub(crate) policy: &'a Policy,
    pub(crate) trace: Trace,
    pub(crate) claims: Option<Claims>,
    /// Whether there was something to compare the report data with.
    pub(crate) bound: bool,
    pub(crate) outcome: Result<Appraisal, Refusal>,
    pub(crate) now: Timestamp,
}

impl Examined<'_> {
    pub(crate) fn report(self) -> Examination {
        let refusal = self.outcome.as_ref().err().map(ToString::to_string);
        let unbound = (!self.bound).then_some(Step::Binding);
        let checks = course(Step::all(self.kind), self.trace.passed(), unbound, refusal, |step| {
            (step.as_str(), self.found(step), self.wanted(step))
        });
        let measured = self.claims.as_ref().map(Claims::measured);
        Examination { kind: self.kind, checks, outcome: self.outcome, measured }
    }

    fn found(&self, step: Step) -> Option<String> {
        let claims = match (step, &self.claims) {
            (Step::Trust, _) => return Some(self.kind.to_string()),
            (_, claims) => claims.as_ref()?,
        };
        match (step, claims) {
            (Step::Binding, _) => Some(hex::encode(claims.report_data())),
            (Step::Image, _) => Some(measured(&claims.measured())),
            (_, Claims::Tdx(claims)) => self.found_tdx(step, claims),
            (_, Claims::Snp(claims)) => self.found_snp(step, claims),
        }
    }

    fn found_tdx(&self, step: Step, claims: &TdxClaims) -> Option<String> {
        let flag = |name: &str, set| format!("{name} {}", if set { "on" } else { "off" });
        match step {
            Step::Guest => Some(format!("attributes {:#018x}", claims.attributes)),
            Step::Firmware => Some(match &claims.advisories[..] {
                [] => claims.tcb_status.to_string(),
                advisories => format!("{}, {}", claims.tcb_status, advisories.join(", ")),
            }),
            Step::Age => Some(format!(
                "collateral {} h old, ends {}, TCB evaluation {}",
                hours(self.now.since(claims.collateral_issued).get()),
                claims.collateral_expires.as_unix_secs(),
                claims.tcb_evaluation_data_number
            )),
            Step::Platform => Some(format!(
                "{}, {}, {}, ppid {}",
                flag("smt", claims.platform.smt),
                flag("dynamic platform", claims.platform.dynamic_platform),
                flag("cached keys", claims.platform.cached_keys),
                hex::encode(&claims.ppid)
            )),
            Step::Trust
            | Step::Signatures
            | Step::Binding
            | Step::Rules
            | Step::Privilege
            | Step::Image
            | Step::Advisories
            | Step::SecondOpinion => None,
        }
    }

    fn found_snp(&self, step: Step, claims: &SnpClaims) -> Option<String> {
        match step {
            Step::Guest => Some(format!("guest policy {:#x}", claims.guest_policy)),
            Step::Privilege => Some(format!("level {}", claims.vmpl)),
            Step::Firmware => Some(format!(
                "{}: {}; at launch: {}",
                claims.product, claims.reported_tcb, claims.launch_tcb
            )),
            Step::Age => Some(format!(
                "revocation list {} h old, endorsements end {}",
                hours(self.now.since(claims.crl_issued).get()),
                claims.endorsements_expire.as_unix_secs()
            )),
            Step::Platform => Some(format!(
                "platform {:#x}, guest policy {:#x}, chip {}",
                claims.platform_info,
                claims.guest_policy,
                hex::encode(claims.chip_id)
            )),
            Step::Trust
            | Step::Signatures
            | Step::Binding
            | Step::Rules
            | Step::Image
            | Step::Advisories
            | Step::SecondOpinion => None,
        }
    }

    fn wanted(&self, step: Step) -> Option<String> {
        let vendor = match self.kind {
            EvidenceKind::None => return None,
            EvidenceKind::Tdx | EvidenceKind::SimulatedTdx => "[tdx]",
            EvidenceKind::Snp | EvidenceKind::SimulatedSnp => "[snp]",
        };
        match (step, self.policy.trust()) {
            (Step::Trust, Trust::Production) => return Some("real hardware".to_owned()),
            (Step::Trust, Trust::Dev) => return Some("real or simulated hardware".to_owned()),
            (Step::Guest, _) => return Some("neither debug nor migration".to_owned()),
            (Step::Rules, _) => return Some(format!("{vendor} in the policy")),
            (_, Trust::Production | Trust::Dev) => {}
        }
        match self.kind {
            EvidenceKind::None => None,
            EvidenceKind::Tdx | EvidenceKind::SimulatedTdx => wanted_tdx(step, self.policy.tdx()?),
            EvidenceKind::Snp | EvidenceKind::SimulatedSnp => {
                wanted_snp(step, self.policy.snp()?, self.claims.as_ref())
            }
        }
    }
}

fn wanted_tdx(step: Step, rules: &TdxRules) -> Option<String> {
    match step {
        Step::Firmware => {
            let statuses: Vec<_> = rules.tcb_status.iter().map(|status| status.as_str()).collect();
            let rejected = &rules.reject_advisories;
            let without = if rejected.is_empty() {
                String::new()
            } else {
                format!(", without {}", rejected.join(", "))
            };
            Some(format!("{}{without}", statuses.join(" or ")))
        }
        Step::Age => Some(format!(
            "at most {} h, TCB evaluation {} or later",
            hours(rules.max_collateral_age.get()),
            rules.min_tcb_evaluation_data_number
        )),
        Step::Platform => {
            let allowed = [
                ("smt", rules.allow_smt),
                ("dynamic platform", rules.allow_dynamic_platform),
                ("cached keys", rules.allow_cached_keys),
            ];
            let allowed = allowed.iter().filter(|(_, allowed)| *allowed).map(|(name, _)| *name);
            let allowed = allowed.collect::<Vec<_>>().join(", ");
            let machines = match rules.allowed_ppid.len() {
                0 => "any machine".to_owned(),
                count => format!("one of {count} listed machines"),
            };
            let allowed = if allowed.is_empty() { "none of the flags" } else { &allowed };
            Some(format!("at most: {allowed}; {machines}"))
        }
        Step::Image => Some(names(rules.images.iter().map(|image| image.name.as_str()))),
        Step::Trust
        | Step::Signatures
        | Step::Guest
        | Step::Binding
        | Step::Rules
        | Step::Privilege
        | Step::Advisories
        | Step::SecondOpinion => None,
    }
}

fn wanted_snp(step: Step, rules: &SnpRules, claims: Option<&Claims>) -> Option<String> {
    match step {
        Step::Privilege => Some(format!("level {} or below", rules.max_vmpl)),
        Step::Firmware => {
            let product = match claims {
                Some(Claims::Snp(claims)) => claims.product,
                Some(Claims::Tdx(_)) | None => return None,
            };
            Some(match rules.min_tcb.get(&product) {
                Some(least) => format!("at least {least}"),
                None => "another processor family".to_owned(),
            })
        }
        Step::Age => {
            Some(format!("revocation list at most {} h old", hours(rules.max_crl_age.get())))
        }
        Step::Platform => {
            let demands = [
                ("no smt", !rules.allow_smt),
                ("a single socket", rules.require_single_socket),
                ("ciphertext hiding", rules.require_ciphertext_hiding),
                ("memory checked for aliases", rules.require_alias_check),
            ];
            let demands = demands.iter().filter(|(_, demanded)| *demanded).map(|(name, _)| *name);
            let machines = match rules.allowed_chip_id.len() {
                0 => "any chip".to_owned(),
                count => format!("one of {count} listed chips"),
            };
            let demands: Vec<_> = demands.chain([machines.as_str()]).collect();
            Some(demands.join(", "))
        }
        Step::Image => Some(names(rules.images.iter().map(|image| image.name.as_str()))),
        Step::Trust
        | Step::Signatures
        | Step::Guest
        | Step::Binding
        | Step::Rules
        | Step::Advisories
        | Step::SecondOpinion => None,
    }
}

/// The registers that an image entry pins, by the policy's keys.
fn measured(measured: &Measured) -> String {
    match measured {
        Measured::Tdx(it) => {
            let [rtmr0, rtmr1, rtmr2, rtmr3] = it.rtmr;
            format!(
                "mrtd {}\nrtmr0 {rtmr0}\nrtmr1 {rtmr1}\nrtmr2 {rtmr2}\nrtmr3 {rtmr3}\n\
                 mrconfigid {}\nmrowner {}\nmrownerconfig {}",
                it.mrtd, it.mr_config_id, it.mr_owner, it.mr_owner_config
            )
        }
        Measured::Snp(it) => format!(
            "measurement {}\nhost_data {}\nid_key_digest {}\nauthor_key_digest {}\nguest_svn {}",
            it.measurement, it.host_data, it.id_key_digest, it.author_key_digest, it.guest_svn
        ),
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "nothing: no image is listed".to_owned() } else { names.join(" or ") }
}

const fn hours(milliseconds: u64) -> u64 {
    milliseconds / 3_600_000
}

impl Examination {
    /// The tier that the evidence earns: what it proves beyond who sent it.
    pub fn tier(&self) -> Tier {
        self.outcome.as_ref().map_or(Tier::Open, |appraisal| appraisal.tier)
    }
}

#[cfg(test)]
mod tests;
