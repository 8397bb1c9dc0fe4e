//! Verdicts of the verifier itself, on simulated hardware: what passes, what refuses, what is not reached.
//!
//! Owns: that each check is shown where the verifier makes it, and that no list loosens a policy.
//! Must not: use the present.

#![cfg(feature = "dev-tee")]

use cocoon_protocol::attest::{
    AdvisoryList, Evidence, Rules, SnpAdvisories, SnpTcb, Subscription, TdxAdvisories,
    WithdrawnImage,
};
use cocoon_protocol::identity::{NodeId, NodeKey};
use cocoon_protocol::units::Millis;
use proptest::prelude::*;

use super::*;
use crate::attester::report_data;
use crate::simulated::{
    SimulatedAttester, SimulatedGuest, SimulatedSnp, SimulatedSnpGuest, dev_policy,
};
use crate::{Appraiser, Attester, Quoted, parse_policy, sign_advisories};

const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);
const DAY: Millis = Millis::from_secs(86_400);

fn quoted(kind: EvidenceKind) -> Quoted {
    let attester: Box<dyn Attester> = if kind == EvidenceKind::SimulatedTdx {
        Box::new(SimulatedAttester::new(SimulatedGuest::default()))
    } else {
        Box::new(SimulatedSnp::new(SimulatedSnpGuest::default()))
    };
    attester.quote(&report_data(7), NOW).unwrap()
}

fn policy(trust: Trust, change: impl FnOnce(&mut Rules)) -> Policy {
    let mut rules = parse_policy(&dev_policy()).unwrap().rules().clone();
    change(&mut rules);
    Policy::new(trust, Tier::Attested, rules).unwrap()
}

fn examine(policy: Policy, kind: EvidenceKind, now: Timestamp) -> Examination {
    let Quoted { evidence, endorsements } = quoted(kind);
    let bound = report_data(7);
    Appraiser::new(policy).examine(&evidence, &endorsements, Some(bound.as_bytes()), now)
}

const KINDS: [EvidenceKind; 2] = [EvidenceKind::SimulatedTdx, EvidenceKind::SimulatedSnp];

/// The check that refused; every one before it passed, and none after it was reached.
fn refused_at(examination: &Examination) -> &'static str {
    let at = examination.checks.iter().position(|it| it.standing == Standing::Failed).unwrap();
    let (before, after) = (&examination.checks[..at], &examination.checks[at + 1..]);
    assert!(before.iter().all(|it| it.standing == Standing::Passed), "{examination:#?}");
    assert!(after.iter().all(|it| it.standing == Standing::NotReached), "{examination:#?}");
    let refusal = examination.outcome.as_ref().unwrap_err();
    assert_eq!(examination.checks[at].reason, Some(refusal.to_string()));
    assert_eq!(examination.tier(), Tier::Open);
    examination.checks[at].check
}

#[test]
fn an_honest_guest_passes_every_check_in_order() {
    for kind in KINDS {
        let examination = examine(policy(Trust::Dev, |_| {}), kind, NOW);
        let steps: Vec<_> = Step::all(kind).iter().map(|step| step.as_str()).collect();
        let shown: Vec<_> = examination.checks.iter().map(|check| check.check).collect();
        assert_eq!(shown, steps);
        assert!(examination.checks.iter().all(|it| it.standing == Standing::Passed));
        assert_eq!(examination.tier(), Tier::Attested);
        let image = examination.checks.iter().find(|it| it.check == "image").unwrap();
        assert!(image.found.as_ref().unwrap().contains('\n') && image.wanted.is_some());
    }
}

#[test]
fn every_check_that_a_policy_can_fail_is_shown_where_it_refuses() {
    for kind in KINDS {
        let at = |policy| refused_at(&examine(policy, kind, NOW));
        assert_eq!(at(policy(Trust::Production, |_| {})), "trust");
        assert_eq!(at(policy(Trust::Dev, |rules| *rules = Rules::default())), "rules");
        let images = policy(Trust::Dev, |rules| {
            rules.tdx.as_mut().unwrap().images.clear();
            rules.snp.as_mut().unwrap().images.clear();
        });
        assert_eq!(at(images), "image");
        let machines = policy(Trust::Dev, |rules| {
            rules.tdx.as_mut().unwrap().allowed_ppid = vec![vec![9; 16]];
            rules.snp.as_mut().unwrap().allowed_chip_id = vec![[9; 64]];
        });
        assert_eq!(at(machines), "platform");
        let firmware = policy(Trust::Dev, |rules| {
            use cocoon_protocol::attest::TcbStatus;
            rules.tdx.as_mut().unwrap().tcb_status = [TcbStatus::OutOfDate].into();
            for least in rules.snp.as_mut().unwrap().min_tcb.values_mut() {
                least.microcode = u8::MAX;
            }
        });
        assert_eq!(at(firmware), "firmware");
        let later = NOW.after(Millis::new(8 * DAY.get()));
        let young = |rules: &mut Rules| {
            rules.tdx.as_mut().unwrap().max_collateral_age = DAY;
            rules.snp.as_mut().unwrap().max_crl_age = DAY;
        };
        assert_eq!(refused_at(&examine(policy(Trust::Dev, young), kind, later)), "age");
    }
}

#[test]
fn what_is_wrong_with_the_evidence_is_shown_where_it_refuses() {
    for kind in KINDS {
        let Quoted { evidence, endorsements } = quoted(kind);
        let appraiser = Appraiser::new(policy(Trust::Dev, |_| {}));
        let other = report_data(8);
        let diverted = appraiser.examine(&evidence, &endorsements, Some(other.as_bytes()), NOW);
        assert_eq!(refused_at(&diverted), "binding");
        let mut quote = evidence.quote().to_vec();
        // The report data of both kinds lies in the signed part.
        quote[0x60] ^= 1;
        let forged = Evidence::new(kind, quote.into()).unwrap();
        let forged = appraiser.examine(&forged, &endorsements, None, NOW);
        assert_eq!(refused_at(&forged), "evidence");
        assert_eq!((forged.measured, &forged.checks[2].found), (None, &None));
        // Without anything to compare with, that is said, and the rest is judged.
        let unbound = appraiser.examine(&evidence, &endorsements, None, NOW);
        let binding = unbound.checks.iter().find(|it| it.check == "binding").unwrap();
        assert_eq!(binding.standing, Standing::NotChecked);
        assert!(unbound.outcome.is_ok());
    }
}

fn maintainer() -> NodeKey {
    NodeKey::from_secret(&[3; 32])
}

fn following(policy: Policy, required: bool) -> Policy {
    let (maintainer, source) = (maintainer().id(), "lists/a".to_owned());
    policy.following(vec![Subscription { maintainer, source, required }]).unwrap()
}

fn list_of(tdx: TdxAdvisories, snp: SnpAdvisories) -> AdvisoryList {
    let expires = NOW.after(DAY);
    AdvisoryList { maintainer: maintainer().id(), version: 1, expires, tdx, snp }
}

#[test]
fn what_a_maintainer_withdraws_is_refused_from_then_on() {
    let withdrawn = |measurement| {
        vec![WithdrawnImage { measurement, reason: "it answers before it attests".to_owned() }]
    };
    let tdx = cocoon_protocol::attest::registry_hash(&SimulatedGuest::default().measurements);
    let snp = SimulatedSnpGuest::default().measurements.measurement;
    let images = list_of(
        TdxAdvisories { withdrawn: withdrawn(hex::encode(tdx)), ..TdxAdvisories::default() },
        SnpAdvisories { withdrawn: withdrawn(snp.to_string()), ..SnpAdvisories::default() },
    );
    let product = cocoon_protocol::attest::SnpProduct::Milan;
    let firmware = list_of(
        TdxAdvisories { min_tcb_eval_data_number: u32::MAX, ..TdxAdvisories::default() },
        SnpAdvisories {
            min_tcb: [(product, SnpTcb { microcode: u8::MAX, ..SnpTcb::default() })].into(),
            ..SnpAdvisories::default()
        },
    );
    for kind in KINDS {
        for list in [&images, &firmware] {
            let Quoted { evidence, endorsements } = quoted(kind);
            let appraiser = Appraiser::new(following(policy(Trust::Dev, |_| {}), false));
            assert!(appraiser.examine(&evidence, &endorsements, None, NOW).outcome.is_ok());
            assert!(appraiser.follow(list));
            let bound = report_data(7);
            let data = Some(bound.as_bytes());
            let examination = appraiser.examine(&evidence, &endorsements, data, NOW);
            assert_eq!(refused_at(&examination), "advisories");
            // An older list, or one of the same version, takes nothing back.
            let nothing = list_of(TdxAdvisories::default(), SnpAdvisories::default());
            assert!(!appraiser.follow(&nothing));
            assert!(appraiser.examine(&evidence, &endorsements, None, NOW).outcome.is_err());
            // Nor does time.
            let later = NOW.after(Millis::new(2 * DAY.get()));
            assert!(appraiser.examine(&evidence, &endorsements, None, later).outcome.is_err());
        }
    }
}

#[test]
fn a_required_list_must_be_there_and_current() {
    let missing = Refusal::AdvisoriesMissing { maintainer: maintainer().id() };
    let nothing = list_of(TdxAdvisories::default(), SnpAdvisories::default());
    for kind in KINDS {
        let Quoted { evidence, endorsements } = quoted(kind);
        let appraiser = Appraiser::new(following(policy(Trust::Dev, |_| {}), true));
        let at = |now| appraiser.examine(&evidence, &endorsements, None, now).outcome;
        assert_eq!(at(NOW).unwrap_err(), missing);
        assert!(appraiser.follow(&nothing));
        // A verdict ends with the list that it rests on.
        assert_eq!(at(NOW).unwrap().expires, nothing.expires);
        assert_eq!(at(nothing.expires).unwrap_err(), missing);
        let stranger = NodeId::from_bytes([1; 32]);
        let others = AdvisoryList { maintainer: stranger, version: 9, ..nothing.clone() };
        assert!(!appraiser.follow(&others));
    }
}

prop_compose! {
    /// Any list: of what exists and of what does not.
    fn any_list()(
        number in prop_oneof![Just(0), Just(1), any::<u32>()],
        microcode in any::<u8>(),
        apply in any::<[bool; 5]>(),
        byte in any::<u8>(),
        life in 0_u64..200_000,
    ) -> AdvisoryList {
        let guest = SimulatedGuest::default().measurements;
        let snp = SimulatedSnpGuest::default().measurements.measurement;
        let some = |apply: bool, real: String| if apply { real } else { hex::encode([byte; 48]) };
        let image = |measurement| vec![WithdrawnImage { measurement, reason: String::new() }];
        let registers = hex::encode(cocoon_protocol::attest::registry_hash(&guest));
        let product = cocoon_protocol::attest::SnpProduct::Milan;
        AdvisoryList {
            expires: NOW.after(Millis::from_secs(life)),
            ..list_of(
                TdxAdvisories {
                    reject_advisories: vec!["INTEL-SA-00001".to_owned()],
                    min_tcb_eval_data_number: number,
                    reject_ppid: vec![hex::encode([byte; 16])],
                    withdrawn: image(some(apply[0], registers)),
                },
                SnpAdvisories {
                    min_tcb: if apply[1] {
                        [(product, SnpTcb { microcode, ..SnpTcb::default() })].into()
                    } else {
                        Default::default()
                    },
                    reject_chip_id: vec![hex::encode([byte; 8])],
                    withdrawn: image(some(apply[2], snp.to_string())),
                },
            )
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever lists come over a network, a policy with them accepts only what it accepts alone, as
    /// the same image in the same tier, and for no longer.
    #[test]
    fn no_list_loosens_any_policy(
        lists in prop::collection::vec(any_list(), 0..4),
        versions in prop::collection::vec(0_u64..5, 4),
        required in any::<bool>(),
        production in any::<bool>(),
        narrow in any::<[bool; 3]>(),
        snp in any::<bool>(),
        hours in 0_u64..400,
    ) {
        let trust = if production { Trust::Production } else { Trust::Dev };
        let alone = policy(trust, |rules| {
            if narrow[0] { rules.tdx.as_mut().unwrap().images.clear(); }
            if narrow[1] { rules.snp.as_mut().unwrap().allowed_chip_id = vec![[9; 64]]; }
            if narrow[2] { rules.tdx.as_mut().unwrap().min_tcb_evaluation_data_number = 99; }
        });
        let followed = Appraiser::new(following(alone.clone(), required));
        for (list, version) in lists.into_iter().zip(versions) {
            followed.follow(&AdvisoryList { version, ..list });
        }
        let alone = Appraiser::new(alone);
        let Quoted { evidence, endorsements } = quoted(KINDS[usize::from(snp)]);
        let now = NOW.after(Millis::from_secs(hours * 3600));
        let with = followed.examine(&evidence, &endorsements, None, now).outcome;
        let without = alone.examine(&evidence, &endorsements, None, now).outcome;
        if let Ok(with) = with {
            let without = without.expect("a list made the policy accept what it refuses");
            prop_assert_eq!((with.tier, with.image), (without.tier, without.image));
            prop_assert!(with.expires <= without.expires);
        }
    }
}

#[test]
fn a_signed_list_is_followed_as_it_was_read() {
    let content = include_str!("../../testdata/advisories.toml");
    let signed = sign_advisories(content, &maintainer()).unwrap();
    let list = crate::read_advisories(signed.as_bytes()).unwrap();
    let appraiser = Appraiser::new(following(policy(Trust::Dev, |_| {}), true));
    assert!(appraiser.follow(&list));
    assert_eq!(appraiser.followed().followed()[0].1, Some(list));
}
