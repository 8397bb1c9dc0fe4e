//! Verdicts on GPUs: genuine ones, and simulated ones with one thing wrong at a time.
//!
//! Owns: that each check is shown where the verifier makes it, and that it agrees with a session's.
//! Must not: use the present.

use bytes::Bytes;
use cocoon_protocol::attest::{
    GpuEvidence, GpuStanding, Policy, Register, Rules, Tier, gpu_nonces, record_gpu_nonces,
};
use cocoon_protocol::units::Timestamp;

use super::*;
use crate::examination::Standing;
use crate::nvidia::{Root, gpu_chain_from_pem, verify};
use crate::{Appraiser, gpu_policy_entry, parse_policy};

const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

fn evidence(report: &'static [u8], pem: &[u8]) -> GpuEvidence {
    GpuEvidence {
        kind: GpuEvidenceKind::Nvidia,
        report: Bytes::from_static(report),
        chain: gpu_chain_from_pem(pem).unwrap().into(),
    }
}

/// A genuine GH100 and a genuine GB100.
fn genuine() -> [GpuEvidence; 2] {
    [
        evidence(
            include_bytes!("../../../testdata/nvidia/hopper_report.bin"),
            include_bytes!("../../../testdata/nvidia/hopper_chain.pem"),
        ),
        evidence(
            include_bytes!("../../../testdata/nvidia/blackwell_report.bin"),
            include_bytes!("../../../testdata/nvidia/blackwell_chain.pem"),
        ),
    ]
}

/// The policy that `tee record` would print for `gpus`.
fn recorded(gpus: &[GpuEvidence]) -> Policy {
    let root = Root::nvidia().unwrap();
    let claims: Vec<_> = gpus.iter().map(|gpu| verify(gpu, &root, NOW).unwrap()).collect();
    let entry = gpu_policy_entry(&claims).unwrap();
    parse_policy(&format!("version = 1\ntrust = \"production\"\n{entry}")).unwrap()
}

fn examine(
    policy: Policy,
    gpus: &[GpuEvidence],
    nonces: Option<&[GpuNonce]>,
) -> Vec<GpuExamination> {
    Appraiser::new(policy).examine_gpus(gpus, nonces, NOW)
}

/// The check that refused; every one before it passed, and none after it was reached.
fn refused_at(examination: &GpuExamination) -> &'static str {
    let at = examination.checks.iter().position(|it| it.standing == Standing::Failed).unwrap();
    let (before, after) = (&examination.checks[..at], &examination.checks[at + 1..]);
    // A binding that nobody knows of is neither.
    let passed = |it: &Check| match it.standing {
        Standing::Passed => true,
        Standing::NotChecked => it.check == "binding",
        Standing::Failed | Standing::NotReached => false,
    };
    assert!(before.iter().all(passed), "{examination:#?}");
    assert!(after.iter().all(|it| it.standing == Standing::NotReached), "{examination:#?}");
    let refusal = examination.outcome.as_ref().unwrap_err();
    assert_eq!(examination.checks[at].reason, Some(refusal.to_string()));
    examination.checks[at].check
}

#[test]
fn genuine_gpus_pass_the_policy_that_was_recorded_of_them() {
    let gpus = genuine();
    let examined = examine(recorded(&gpus), &gpus, None);
    for examination in &examined {
        let appraisal = examination.outcome.as_ref().unwrap();
        assert_eq!((appraisal.standing, appraisal.simulated), (GpuStanding::Golden, false));
        for check in &examination.checks {
            // Nobody knows what the samples were to be bound to.
            let unknown = check.check == "binding";
            let expected = if unknown { Standing::NotChecked } else { Standing::Passed };
            assert_eq!(check.standing, expected, "{}", check.check);
        }
    }
    let state = examined[0].checks.iter().find(|it| it.check == "state").unwrap();
    let found = "driver 550.90.07, VBIOS 96.00.9F.00.01: gpu-golden";
    assert_eq!(state.found.as_deref(), Some(found));
    assert!(state.wanted.as_ref().unwrap().contains("driver 575.32, VBIOS 97.00.88.00.0F"));
}

#[test]
fn each_check_of_a_genuine_gpu_fails_where_it_is_made() {
    let [hopper, blackwell] = genuine();
    let own = || recorded(std::slice::from_ref(&hopper));
    let at = |policy: Policy, gpu: &GpuEvidence, nonces: Option<&[GpuNonce]>| {
        refused_at(&examine(policy, std::slice::from_ref(gpu), nonces)[0])
    };
    let cut = GpuEvidence { report: hopper.report.slice(..200), ..hopper.clone() };
    assert_eq!(at(own(), &cut, None), "report");
    let cut = GpuEvidence { chain: hopper.chain.slice(..200), ..hopper.clone() };
    assert_eq!(at(own(), &cut, None), "certificates");
    let mixed = GpuEvidence { chain: blackwell.chain.clone(), ..hopper.clone() };
    assert_eq!(at(own(), &mixed, None), "signature");
    // A nonce that is known, and none where one had to be.
    assert_eq!(at(own(), &hopper, Some(&gpu_nonces(&[1; 32], &[2; 32], 1))), "binding");
    let none = examine(own(), std::slice::from_ref(&hopper), Some(&[]));
    assert_eq!(none[0].outcome, Err(GpuRefusal::NotFresh));
    assert_eq!(at(Policy::closed(), &hopper, None), "rules");
    let with = |change: &dyn Fn(&mut GpuRules)| {
        let mut rules = own().rules().clone();
        change(rules.gpu.as_mut().unwrap());
        Policy::new(Trust::Production, Tier::Open, rules).unwrap()
    };
    let device = Root::nvidia().and_then(|root| verify(&hopper, &root, NOW).ok()).unwrap().device();
    let revoking = with(&|rules| rules.revoked_keys = [device].into());
    assert_eq!(at(revoking, &hopper, None), "revocation");
    assert_eq!(at(with(&|rules| rules.architectures.clear()), &hopper, None), "architecture");
    assert_eq!(at(with(&|rules| rules.golden.clear()), &hopper, None), "state");
    let other = with(&|rules| {
        let values = rules.golden[0].measurements.get_mut(&21).unwrap();
        *values = vec![Register::from_bytes([1; 48])];
    });
    let examined = examine(other, std::slice::from_ref(&hopper), None);
    assert_eq!(refused_at(&examined[0]), "state");
    assert_eq!(examined[0].outcome, Err(GpuRefusal::UnknownMeasurement { index: 21 }));
    // The same GPU twice: the first passes.
    let twice = examine(own(), &[hopper.clone(), hopper.clone()], None);
    assert!(twice[0].outcome.is_ok());
    let last = twice[1].checks.last().unwrap();
    assert_eq!((last.check, last.standing), ("distinct", Standing::Failed));
}

/// A slot that measured nothing when the entry was recorded may not measure something later.
#[test]
fn the_entry_of_a_gpu_pins_what_was_not_measured_too() {
    let gpus = genuine();
    let root = Root::nvidia().unwrap();
    let [hopper, blackwell] = gpus.each_ref().map(|gpu| verify(gpu, &root, NOW).unwrap());
    let policy = recorded(&gpus);
    let rules = policy.gpu().unwrap();
    assert_eq!(rules.golden.len(), 2);
    assert!(rules.golden.iter().all(|golden| golden.measurements.len() == 64));
    assert!(!rules.allow_missing_fwid);
    // Two GPUs in one state are one entry, and none is no entry.
    let entry = gpu_policy_entry(&[hopper.clone(), hopper.clone()]).unwrap();
    assert_eq!(entry.matches("[[gpu.golden]]").count(), 1);
    assert!(entry.starts_with("[gpu]\narch = [\"GH100\"]\n\n# as recorded;"), "{entry}");
    assert_eq!(gpu_policy_entry(&[]), None);
    let early = GpuClaims { names_firmware: false, ..hopper };
    let entry = gpu_policy_entry(&[early, blackwell]).unwrap();
    assert!(entry.contains("[\"GH100\", \"GB100\"]\nallow_missing_fwid = true\n"), "{entry}");
}

#[cfg(feature = "dev-tee")]
mod simulated {
    use super::*;
    use crate::GpuAttester as _;
    use crate::simulated::{SimulatedGpu, SimulatedGpus, dev_policy};

    #[test]
    fn recorded_nonces_bind_and_a_production_policy_trusts_no_simulation() {
        let nonces = record_gpu_nonces(&[7; 32], 2);
        let both = vec![SimulatedGpu::new(0), SimulatedGpu::new(1)];
        let gpus = SimulatedGpus::new(both).evidence(&nonces).unwrap();
        let dev = || parse_policy(&dev_policy()).unwrap();
        for examination in examine(dev(), &gpus, Some(&nonces)) {
            assert!(examination.checks.iter().all(|it| it.standing == Standing::Passed));
            assert!(examination.outcome.unwrap().simulated);
        }
        // Another record's, or each other's.
        let other = record_gpu_nonces(&[8; 32], 2);
        let swapped = [nonces[1], nonces[0]];
        for wrong in [&other[..], &swapped] {
            let examined = examine(dev(), &gpus, Some(wrong));
            assert!(examined.iter().all(|it| refused_at(it) == "binding"));
        }
        let rules = Rules { gpu: dev().gpu().cloned(), ..Rules::default() };
        let production = Policy::new(Trust::Production, Tier::Open, rules).unwrap();
        let examined = examine(production, &gpus, Some(&nonces));
        assert!(examined.iter().all(|it| refused_at(it) == "trust"));
    }

    #[test]
    fn a_verdict_outside_of_a_session_is_a_session_s() {
        let nonces = gpu_nonces(&[1; 32], &[2; 32], 1);
        let honest = SimulatedGpus::new(vec![SimulatedGpu::new(0)]).evidence(&nonces).unwrap();
        let appraiser = Appraiser::new(parse_policy(&dev_policy()).unwrap());
        for at in (0..honest[0].report.len()).step_by(97) {
            let mut report = honest[0].report.to_vec();
            report[at] ^= 1;
            let altered = [GpuEvidence { report: report.into(), ..honest[0].clone() }];
            let session = appraiser.judge_gpus(&altered, &[1; 32], &[2; 32], NOW);
            let examined = appraiser.examine_gpus(&altered, Some(&nonces), NOW).remove(0);
            let outcome = examined.outcome.map(|it| vec![it]).map_err(|why| why.of(0));
            assert_eq!(outcome, session, "{at}");
        }
    }
}
