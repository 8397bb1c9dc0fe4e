//! The verdict on a whole evidence file: the guest, its GPUs, and the tier of both together.
//!
//! Owns: what one part's verdict means for the other. Must not: check a part; each has its examination.

use cocoon_protocol::attest::{GpuAppraisal, Refusal, Tier, tier_with_gpus};
use cocoon_protocol::units::Timestamp;

use super::{Examination, GpuExamination};
use crate::Appraiser;
use crate::evidence_file::EvidenceFile;

/// A verdict on an evidence file.
#[derive(Clone, Debug)]
pub struct FileExamination {
    /// The guest.
    pub guest: Examination,
    /// Every GPU, in order.
    pub gpus: Vec<GpuExamination>,
    /// What a session with such evidence would be worth, or the first check that failed: a GPU that is
    /// shown and refused is a refusal, even where a policy lets sessions leave GPUs away.
    pub outcome: Result<FileAppraisal, Refusal>,
}

/// What the policy found acceptable in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAppraisal {
    /// The tier.
    pub tier: Tier,
    /// The policy's name for the image that runs.
    pub image: String,
    /// Until when guest and GPUs are vouched for.
    pub expires: Timestamp,
    /// Whether the guest's evidence covers that of the GPUs and they were asked for this record. Without
    /// that, they are some genuine GPUs somewhere, and no tier follows from them.
    pub gpus_bound: bool,
}

impl Appraiser {
    /// Judges all that is in `file`, as a session would that asks for everything.
    pub fn examine_file(&self, file: &EvidenceFile, now: Timestamp) -> FileExamination {
        let report_data = file.report_data();
        let report_data = report_data.as_ref().map(|data| data.as_bytes());
        let guest = self.examine(&file.evidence, &file.endorsements, report_data, now);
        let nonces = file.gpu_nonces();
        let gpus = self.examine_gpus(&file.gpus, nonces.as_deref(), now);
        let outcome = self.together(&guest, &gpus, nonces.is_some());
        FileExamination { guest, gpus, outcome }
    }

    fn together(
        &self,
        guest: &Examination,
        gpus: &[GpuExamination],
        bound: bool,
    ) -> Result<FileAppraisal, Refusal> {
        let appraisal = guest.outcome.clone()?;
        let policy = self.policy();
        if gpus.is_empty() && policy.gpu().is_some_and(|rules| rules.required) {
            return Err(Refusal::GpuEvidenceMissing);
        }
        let judged = |(position, gpu): (usize, &GpuExamination)| {
            gpu.outcome.clone().map_err(|why| why.of(position))
        };
        let judged: Vec<GpuAppraisal> =
            gpus.iter().enumerate().map(judged).collect::<Result<_, _>>()?;
        let expires = judged.iter().map(|gpu| gpu.expires).fold(appraisal.expires, Timestamp::min);
        let tier = if bound { tier_with_gpus(appraisal.tier, &judged) } else { appraisal.tier };
        // What a session with evidence is asked for: a policy may let none be less than `confidential`.
        let asked = policy.demanded(Tier::Attested);
        if tier < asked {
            return Err(Refusal::TierTooLow { asked, earned: tier });
        }
        let gpus_bound = bound && !judged.is_empty();
        Ok(FileAppraisal { tier, image: appraisal.image, expires, gpus_bound })
    }
}

#[cfg(test)]
#[cfg(feature = "dev-tee")]
mod tests {
    use cocoon_protocol::attest::{
        EvidenceKind, GpuEvidence, GpuNonce, GpuRefusal, Policy, RecordBinding, Rules, Trust,
        record_gpu_nonces,
    };

    use super::*;
    use crate::evidence_file::Recorded;
    use crate::simulated::{
        SimulatedAttester, SimulatedGpu, SimulatedGpus, SimulatedGuest, dev_policy,
    };
    use crate::{Attester as _, GpuAttester as _, Quoted, parse_policy};

    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);
    const RECORDED: Recorded = Recorded { nonce: [3; 32], configuration: [0; 32] };

    /// A record of a simulated guest with `gpus`, whose evidence covers theirs.
    fn file(gpus: Vec<GpuEvidence>) -> EvidenceFile {
        let report_data = RecordBinding {
            kind: EvidenceKind::SimulatedTdx,
            nonce: &RECORDED.nonce,
            made_at: NOW,
            configuration: &RECORDED.configuration,
            gpu_digest: &GpuEvidence::digest(&gpus),
        }
        .report_data();
        let attester = SimulatedAttester::new(SimulatedGuest::default());
        let Quoted { evidence, endorsements } = attester.quote(&report_data, NOW).unwrap();
        let made_by = String::new();
        let record = Some(RECORDED);
        EvidenceFile { made_at: NOW, evidence, endorsements, gpus, record, made_by }
    }

    fn gpus(count: u8, nonces: &[GpuNonce]) -> Vec<GpuEvidence> {
        SimulatedGpus::new((0..count).map(SimulatedGpu::new).collect()).evidence(nonces).unwrap()
    }

    fn recorded(count: u8) -> EvidenceFile {
        file(gpus(count, &record_gpu_nonces(&RECORDED.nonce, count.into())))
    }

    fn policy(minimum: Tier, change: impl FnOnce(&mut Rules)) -> Appraiser {
        let mut rules = parse_policy(&dev_policy()).unwrap().rules().clone();
        change(&mut rules);
        Appraiser::new(Policy::new(Trust::Dev, minimum, rules).unwrap())
    }

    fn outcome(appraiser: &Appraiser, file: &EvidenceFile) -> Result<Tier, Refusal> {
        appraiser.examine_file(file, NOW).outcome.map(|found| found.tier)
    }

    #[test]
    fn a_guest_is_attested_and_with_its_gpus_confidential() {
        let appraiser = policy(Tier::Attested, |_| {});
        assert_eq!(outcome(&appraiser, &recorded(0)), Ok(Tier::Attested));
        for count in [1, 8] {
            let examined = appraiser.examine_file(&recorded(count), NOW);
            assert_eq!(examined.gpus.len(), usize::from(count));
            let found = examined.outcome.unwrap();
            assert_eq!((found.tier, found.gpus_bound), (Tier::Confidential, true));
        }
    }

    #[test]
    fn gpus_of_another_record_are_refused_by_their_nonce() {
        let file = file(gpus(1, &record_gpu_nonces(&[9; 32], 1)));
        let refused = Err(GpuRefusal::NotFresh.of(0));
        assert_eq!(outcome(&policy(Tier::Attested, |_| {}), &file), refused);
    }

    #[test]
    fn gpus_that_the_guest_does_not_cover_are_refused_with_it() {
        let appraiser = policy(Tier::Attested, |_| {});
        let added = EvidenceFile { gpus: recorded(1).gpus, ..recorded(0) };
        let removed = EvidenceFile { gpus: Vec::new(), ..recorded(1) };
        let swapped = recorded(2);
        let swapped =
            EvidenceFile { gpus: swapped.gpus.iter().rev().cloned().collect(), ..swapped };
        for file in [added, removed, swapped] {
            assert_eq!(outcome(&appraiser, &file), Err(Refusal::NotFresh));
        }
    }

    #[test]
    fn one_refused_gpu_refuses_the_file() {
        let without_rules = policy(Tier::Attested, |rules| rules.gpu = None);
        assert_eq!(outcome(&without_rules, &recorded(2)), Err(GpuRefusal::NoRules.of(0)));
        assert_eq!(outcome(&without_rules, &recorded(0)), Ok(Tier::Attested));
        let mut file = recorded(2);
        let mut report = file.gpus[1].report.to_vec();
        *report.last_mut().unwrap() ^= 1;
        file.gpus[1].report = report.into();
        // Nobody bound this file, so that the GPU's own check shows.
        let file = EvidenceFile { record: None, ..file };
        let refused = Err(GpuRefusal::ReportSignature.of(1));
        assert_eq!(outcome(&policy(Tier::Attested, |_| {}), &file), refused);
    }

    #[test]
    fn what_a_policy_demands_has_to_be_in_the_file() {
        let required = policy(Tier::Attested, |rules| rules.gpu.as_mut().unwrap().required = true);
        assert_eq!(outcome(&required, &recorded(0)), Err(Refusal::GpuEvidenceMissing));
        assert_eq!(outcome(&required, &recorded(1)), Ok(Tier::Confidential));
        let asked = Tier::Confidential;
        let too_low = Err(Refusal::TierTooLow { asked, earned: Tier::Attested });
        assert_eq!(outcome(&policy(asked, |_| {}), &recorded(0)), too_low);
        // GPUs that nothing binds to the guest are not those that are demanded.
        let unbound = EvidenceFile { record: None, ..recorded(1) };
        assert_eq!(outcome(&required, &unbound), too_low);
    }

    #[test]
    fn gpus_that_nothing_binds_to_the_guest_earn_no_tier() {
        let file = EvidenceFile { record: None, ..recorded(1) };
        let found = policy(Tier::Attested, |_| {}).examine_file(&file, NOW).outcome.unwrap();
        assert_eq!((found.tier, found.gpus_bound), (Tier::Attested, false));
    }
}
