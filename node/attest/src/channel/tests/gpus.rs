//! Sessions with (simulated) GPUs: what it takes to be `confidential`, and every way to fall short.
//!
//! Owns: the step from a CPU's evidence to a GPU's. Must not: touch hardware.

use std::sync::Mutex;

use super::*;
use crate::channel::identity::{GPU_QUEUE, Issued};
use crate::simulated::{
    SimulatedAttester, SimulatedGpu, SimulatedGpus, SimulatedGuest, dev_policy,
};
use crate::{ANSWER_TIMEOUT, GpuAttester, QuoteError, WithGpus, parse_policy};
use cocoon_protocol::attest::{
    AttestResponse, GpuEvidence, GpuIdentityOnly, GpuNonce, GpuRefusal, GpuRules, GpuStanding,
    Rules, SessionBinding, SessionRole, Trust,
};
use cocoon_protocol::identity::Domain;
use cocoon_protocol::limits;

fn policy() -> Policy {
    parse_policy(&dev_policy()).unwrap()
}

/// The dev policy with other rules for GPUs.
fn policy_with(change: impl FnOnce(&mut GpuRules)) -> Policy {
    let mut gpu = policy().gpu().cloned().unwrap();
    change(&mut gpu);
    let rules = Rules { gpu: Some(gpu), ..policy().rules().clone() };
    Policy::new(Trust::Dev, Tier::Open, rules).unwrap()
}

fn cpu() -> Arc<SimulatedAttester> {
    Arc::new(SimulatedAttester::new(SimulatedGuest::default()))
}

/// A machine with a simulated TEE and these GPUs.
fn world_with(gpus: impl GpuAttester + 'static) -> World {
    let attester = Arc::new(WithGpus::new(cpu(), Arc::new(gpus)));
    World { attester, policy: policy(), ..World::open() }
}

fn gpus(count: u8) -> SimulatedGpus {
    SimulatedGpus::new((0..count).map(SimulatedGpu::new).collect())
}

fn world() -> World {
    world_with(gpus(2))
}

/// What the consumer says to GPUs that answer like this.
async fn refusal_of(gpus: impl GpuAttester + 'static) -> Refusal {
    world_with(gpus).refusal(Tier::Confidential).await
}

#[tokio::test]
async fn a_tee_with_gpus_in_a_listed_state_is_confidential() {
    let (near, far) = world().try_open(Tier::Confidential).await;
    let (near, far) = (near.unwrap(), far.unwrap());
    let verdict = near.verdict();
    assert_eq!((verdict.tier, verdict.simulated), (Tier::Confidential, true));
    assert_eq!(verdict.gpus.len(), 2);
    assert!(verdict.gpus.iter().all(|gpu| gpu.standing == GpuStanding::Golden && gpu.simulated));
    assert_ne!(verdict.gpus[0].device, verdict.gpus[1].device);

    let echo = tokio::spawn(echo(far));
    let (mut sender, mut receiver) = near.split();
    sender.send(frame(1_000, 1)).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().unwrap(), frame(1_000, 1));
    drop(sender);
    assert_eq!(receiver.recv().await, Ok(None));
    assert_eq!(echo.await.unwrap(), Ok(1));
}

#[tokio::test]
async fn eight_gpus_fit_and_more_do_not() {
    let (near, _far) = world_with(gpus(8)).try_open(Tier::Confidential).await;
    assert_eq!(near.unwrap().verdict().gpus.len(), 8);
    let (near, far) = world_with(gpus(9)).try_open(Tier::Confidential).await;
    assert_eq!(near.unwrap_err(), ChannelError::Refused(Refusal::Unable));
    assert_eq!(far.unwrap_err(), ChannelError::Quote(QuoteError::TooLarge));
}

#[tokio::test]
async fn gpus_are_not_asked_where_nobody_asked_for_them() {
    for tier in [Tier::Open, Tier::Attested] {
        let (near, far) = world().try_open(tier).await;
        let near = near.unwrap();
        assert_eq!((near.verdict().tier, near.verdict().gpus.len()), (tier, 0));
        assert_eq!(far.unwrap().tier(), tier);
    }
}

#[tokio::test]
async fn a_policy_may_demand_gpus_of_every_session_with_evidence() {
    let required = policy_with(|rules| rules.required = true);
    let with = World { policy: required.clone(), ..world() };
    let (near, far) = with.try_open(Tier::Attested).await;
    assert_eq!(near.unwrap().verdict().tier, Tier::Confidential);
    assert_eq!(far.unwrap().tier(), Tier::Confidential);
    let without = World { attester: cpu(), policy: required.clone(), ..World::open() };
    assert_eq!(without.refusal(Tier::Attested).await, Refusal::GpuEvidenceMissing);
    // Tier `open` is without evidence, and says so.
    let (near, _far) = World { policy: required, ..world() }.try_open(Tier::Open).await;
    assert_eq!(near.unwrap().verdict().tier, Tier::Open);
}

#[tokio::test]
async fn a_tee_without_gpu_evidence_is_not_confidential() {
    let world = World { attester: cpu(), policy: policy(), ..World::open() };
    assert_eq!(world.refusal(Tier::Confidential).await, Refusal::GpuEvidenceMissing);
    assert_eq!(refusal_of(gpus(0)).await, Refusal::GpuEvidenceMissing);
}

#[tokio::test]
async fn gpus_without_a_tee_prove_nothing() {
    let attester = Arc::new(WithGpus::new(Arc::new(OpenAttester), Arc::new(gpus(1))));
    let world = World { attester, policy: policy(), ..World::open() };
    assert_eq!(world.refusal(Tier::Confidential).await, Refusal::EvidenceMissing);
}

#[tokio::test]
async fn a_cpu_that_is_refused_is_refused_whatever_its_gpus_are() {
    let debug = SimulatedGuest { attributes: 1 << 28 | 1, ..SimulatedGuest::default() };
    let cpu = Arc::new(SimulatedAttester::new(debug));
    let attester = Arc::new(WithGpus::new(cpu, Arc::new(gpus(1))));
    let world = World { attester, policy: policy(), ..World::open() };
    assert_eq!(world.refusal(Tier::Confidential).await, Refusal::Debug);
}

#[tokio::test]
async fn a_production_policy_refuses_simulated_gpus() {
    let production = Policy::new(Trust::Production, Tier::Open, policy().rules().clone()).unwrap();
    let world = World { policy: production.clone(), ..world() };
    assert_eq!(world.refusal(Tier::Confidential).await, Refusal::SimulatedNotAllowed);
    // And by themselves, as beside a genuine CPU.
    let nonces = cocoon_protocol::attest::gpu_nonces(&[1; 32], &[2; 32], 1);
    let evidence = gpus(1).evidence(&nonces).unwrap();
    let judge = |policy| Appraiser::new(policy).judge_gpus(&evidence, &[1; 32], &[2; 32], START);
    assert_eq!(judge(production), Err(GpuRefusal::SimulatedNotAllowed.of(0)));
    assert!(judge(policy()).is_ok());
}

#[tokio::test]
async fn a_simulated_gpu_does_not_pass_for_a_genuine_one() {
    let nonces = cocoon_protocol::attest::gpu_nonces(&[1; 32], &[2; 32], 1);
    let kind = cocoon_protocol::attest::GpuEvidenceKind::Nvidia;
    let mut evidence = gpus(1).evidence(&nonces).unwrap();
    evidence[0].kind = kind;
    let judged = Appraiser::new(policy()).judge_gpus(&evidence, &[1; 32], &[2; 32], START);
    assert_eq!(judged, Err(GpuRefusal::UntrustedRoot.of(0)));
}

#[tokio::test]
async fn a_policy_without_rules_or_golden_values_denies_gpus() {
    let rules = Rules { gpu: None, ..policy().rules().clone() };
    let none = Policy::new(Trust::Dev, Tier::Open, rules).unwrap();
    let world = World { policy: none, ..world() };
    assert_eq!(world.refusal(Tier::Confidential).await, GpuRefusal::NoRules.of(0));
    let empty = World { policy: policy_with(|rules| rules.golden.clear()), ..world };
    let version = SimulatedGpu::new(0).driver;
    let refused = GpuRefusal::DriverNotAllowed { version }.of(0);
    assert_eq!(empty.refusal(Tier::Confidential).await, refused);
}

#[tokio::test]
async fn one_gpu_in_another_state_spoils_the_session() {
    let mut changed = SimulatedGpu::new(1);
    changed.measurements.insert(21, cocoon_protocol::attest::Register::from_bytes([1; 48]));
    let gpus = SimulatedGpus::new(vec![SimulatedGpu::new(0), changed]);
    let refused = GpuRefusal::UnknownMeasurement { index: 21 }.of(1);
    assert_eq!(refusal_of(gpus).await, refused);
}

#[tokio::test]
async fn identity_alone_is_attested_and_labelled_and_never_confidential() {
    let gpu = SimulatedGpu::new(0);
    let only = policy_with(|rules| {
        rules.golden.clear();
        rules.required = true;
        rules.identity_only = Some(GpuIdentityOnly {
            drivers: [gpu.driver.clone()].into(),
            vbios: [gpu.vbios_version()].into(),
        });
    });
    let world = World { policy: only, ..world() };
    let (near, far) = world.try_open(Tier::Attested).await;
    let near = near.unwrap();
    // The provider cannot know how well the policy knows its GPUs, and states no more than that.
    assert_eq!((near.verdict().tier, far.unwrap().tier()), (Tier::Attested, Tier::Attested));
    assert_eq!(near.verdict().gpus[0].standing.as_str(), "gpu-identity-only");
    let (asked, earned) = (Tier::Confidential, Tier::Attested);
    assert_eq!(world.refusal(asked).await, Refusal::TierTooLow { asked, earned });
}

#[tokio::test]
async fn golden_gpus_that_nobody_asked_to_be_confidential_are_labelled_as_both_ends_know() {
    let either = policy_with(|rules| {
        rules.required = true;
        let (drivers, vbios) = (["another".to_owned()].into(), ["another".to_owned()].into());
        rules.identity_only = Some(GpuIdentityOnly { drivers, vbios });
    });
    let (near, far) = World { policy: either, ..world() }.try_open(Tier::Attested).await;
    let near = near.unwrap();
    assert!(near.verdict().gpus.iter().all(|gpu| gpu.standing == GpuStanding::Golden));
    assert_eq!((near.verdict().tier, far.unwrap().tier()), (Tier::Attested, Tier::Attested));
}

/// GPUs whose evidence a host rearranges before the guest hashes it: software in the guest that is
/// not what the policy lists could do so.
struct Rearranged<F>(F);

impl<F> std::fmt::Debug for Rearranged<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rearranged")
    }
}

impl<F> GpuAttester for Rearranged<F>
where
    F: Fn(&[GpuNonce]) -> Vec<GpuEvidence> + Send + Sync,
{
    fn count(&self) -> usize {
        2
    }

    fn evidence(&self, nonces: &[GpuNonce]) -> Result<Vec<GpuEvidence>, QuoteError> {
        Ok((self.0)(nonces))
    }
}

#[tokio::test]
async fn swapped_gpus_are_refused() {
    let swapped = Rearranged(|nonces: &[GpuNonce]| {
        let mut evidence = gpus(2).evidence(nonces).unwrap();
        evidence.reverse();
        evidence
    });
    assert_eq!(refusal_of(swapped).await, GpuRefusal::NotFresh.of(0));
}

#[tokio::test]
async fn one_gpu_that_answers_for_two_is_refused() {
    let one = |nonce| gpus(1).evidence(&[nonce]).unwrap().remove(0);
    let twice = Rearranged(move |nonces: &[GpuNonce]| nonces.iter().copied().map(one).collect());
    assert_eq!(refusal_of(twice).await, GpuRefusal::Duplicate.of(1));
}

#[tokio::test]
async fn evidence_of_an_earlier_session_is_refused() {
    let kept = Mutex::new(None);
    let replaying = Rearranged(move |nonces: &[GpuNonce]| {
        let fresh = gpus(2).evidence(nonces).unwrap();
        kept.lock().unwrap().get_or_insert(fresh).clone()
    });
    let world = world_with(replaying);
    assert!(world.try_open(Tier::Confidential).await.0.is_ok());
    assert_eq!(world.refusal(Tier::Confidential).await, GpuRefusal::NotFresh.of(0));
}

#[tokio::test]
async fn a_gpu_that_cannot_answer_makes_the_provider_unable() {
    let missing = Rearranged(|nonces: &[GpuNonce]| gpus(1).evidence(nonces).unwrap());
    let (near, far) = world_with(missing).try_open(Tier::Confidential).await;
    assert_eq!(near.unwrap_err(), ChannelError::Refused(Refusal::Unable));
    assert_eq!(far.unwrap_err(), ChannelError::Quote(QuoteError::Unavailable));
}

/// What the consumer says when somebody who holds the session's TLS key changes the genuine answer on
/// its way; with `stolen`, somebody who holds the node's key too and signs anew.
async fn changed_on_the_way(
    tier: Tier,
    stolen: bool,
    change: impl FnOnce(&mut Vec<GpuEvidence>),
) -> Refusal {
    let world = world();
    let identity = world.identity();
    let issued = identity.current().await.unwrap();
    let (near, far) = duplex(64 * 1024);
    let attacker = async {
        let mut fake = FakeProvider::accept(far, Arc::clone(&issued.config)).await;
        let exporter = fake.tls.exporter(&fake.request.nonce).unwrap();
        let answered = identity
            .answer((SessionRole::Server, consumer()), &fake.request, &exporter, &issued)
            .await;
        let mut answer = AttestResponse::from_bytes(&answered.unwrap().response).unwrap();
        change(&mut answer.gpus);
        if stolen {
            let report_data = SessionBinding {
                network: &world.network,
                role: SessionRole::Server,
                exporter: &exporter,
                nonce: &fake.request.nonce,
                public_key: issued.public_key(),
                peer: &world.key.id(),
                gpu_digest: &GpuEvidence::digest(&answer.gpus),
                model_manifest: Some(&[5; 32]),
            }
            .report_data();
            answer.signature = world.key.sign(Domain::SessionIdentity, report_data.as_bytes());
        }
        fake.send(Kind::AttestResponse, &answer.to_bytes()).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        connected = connect(near, world.connect_options(tier)) => match connected {
            Err(ChannelError::Refused(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        },
        () = attacker => unreachable!(),
    }
}

/// As good as the genuine evidence in everything but the digest: the same GPU, the same nonce.
fn forged_anew(list: &mut [GpuEvidence]) {
    let report = list[0].report.to_vec();
    list[0].report = crate::simulated::resign_report(&SimulatedGpu::new(0), &report).into();
}

#[tokio::test]
async fn gpu_evidence_changed_on_the_way_is_refused() {
    let tier = Tier::Confidential;
    let changes: [fn(&mut Vec<GpuEvidence>); 5] = [
        |list| drop(list.pop()),
        |list| list.reverse(),
        |list| list.clear(),
        |list| list.push(list[0].clone()),
        |list| forged_anew(list),
    ];
    for change in changes {
        assert_eq!(changed_on_the_way(tier, false, change).await, Refusal::NotSigned);
        // With every key but the TEE, the CPU's quote still covers what the GPUs really said.
        assert_eq!(changed_on_the_way(tier, true, change).await, Refusal::NotFresh);
    }
}

#[tokio::test]
async fn gpu_evidence_that_nobody_asked_for_is_refused() {
    let unasked = |list: &mut Vec<GpuEvidence>| {
        let nonces = cocoon_protocol::attest::gpu_nonces(&[1; 32], &[2; 32], 1);
        list.extend(gpus(1).evidence(&nonces).unwrap());
    };
    assert_eq!(changed_on_the_way(Tier::Attested, true, unasked).await, Refusal::NotFresh);
    assert_eq!(changed_on_the_way(Tier::Open, true, unasked).await, Refusal::Malformed);
}

#[tokio::test(start_paused = true)]
async fn a_confidential_session_lives_on_fresh_gpu_evidence_and_ends_with_it() {
    let turned = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = Arc::clone(&turned);
    let turning = Rearranged(move |nonces: &[GpuNonce]| {
        let mut evidence = gpus(2).evidence(nonces).unwrap();
        if told.load(Ordering::Relaxed) {
            evidence.reverse();
        }
        evidence
    });
    let (near, far) = world_with(turning).try_open(Tier::Confidential).await;
    let echo = tokio::spawn(echo(far.unwrap()));
    let (mut sender, mut receiver) = near.unwrap().split();
    for round in 0..6 {
        tokio::time::sleep(std::time::Duration::from_secs(300)).await;
        sender.send(frame(10, round)).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), frame(10, round));
    }
    assert_eq!(sender.verdict().unwrap().tier, Tier::Confidential);
    turned.store(true, Ordering::Relaxed);
    let refused = ChannelError::Refused(GpuRefusal::NotFresh.of(0));
    assert_eq!(receiver.recv().await, Err(refused));
    drop((sender, receiver));
    assert!(echo.await.unwrap().is_err());
}

/// GPUs whose driver does not return until the test lets it go.
#[derive(Debug)]
struct Stuck {
    began: tokio::sync::mpsc::Sender<()>,
    go_on: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Stuck {
    fn new() -> (Self, tokio::sync::mpsc::Receiver<()>, std::sync::mpsc::Sender<()>) {
        let (began, begun) = tokio::sync::mpsc::channel(8);
        let (let_go, go_on) = std::sync::mpsc::channel();
        (Self { began, go_on: Mutex::new(go_on) }, begun, let_go)
    }
}

impl GpuAttester for Stuck {
    fn count(&self) -> usize {
        1
    }

    fn evidence(&self, nonces: &[GpuNonce]) -> Result<Vec<GpuEvidence>, QuoteError> {
        let _ = self.began.try_send(());
        let _ = self.go_on.lock().unwrap().recv();
        gpus(1).evidence(nonces)
    }
}

/// Asks a provider for a session of `tier`, as the peer with this number.
async fn ask(identity: &ChannelIdentity, issued: &Issued, number: u8, tier: Tier) -> Answer {
    let gpu = tier == Tier::Confidential;
    let request = AttestRequest { nonce: [1; 32], want: tier, gpu, policy: policy().id() };
    let asker = (SessionRole::Server, NodeId::from_bytes([number; 32]));
    identity.answer(asker, &request, &[2; 32], issued).await.map(|it| it.tier)
}

type Answer = Result<Tier, QuoteError>;

#[tokio::test(start_paused = true)]
async fn gpus_that_never_answer_keep_nobody_from_a_quote() {
    let (stuck, mut began, go_on) = Stuck::new();
    let identity = world_with(stuck).identity();
    let issued = identity.current().await.unwrap();
    let asking = |number| {
        let (identity, issued) = (Arc::clone(&identity), Arc::clone(&issued));
        tokio::spawn(async move { ask(&identity, &issued, number, Tier::Confidential).await })
    };
    let attested = Ok(Tier::Attested);
    let first = asking(1);
    began.recv().await.unwrap();
    assert_eq!(ask(&identity, &issued, 2, Tier::Attested).await, attested);
    tokio::time::advance(ANSWER_TIMEOUT).await;
    assert_eq!(first.await.unwrap(), Err(QuoteError::TimedOut));
    // The call is still out: no other is made beside it, and whoever wants one is not kept.
    let second = asking(3);
    tokio::task::yield_now().await;
    tokio::time::advance(limits::ATTEST_TIMEOUT.to_duration()).await;
    assert_eq!(second.await.unwrap(), Err(QuoteError::Busy));
    assert_eq!(ask(&identity, &issued, 2, Tier::Attested).await, attested);
    go_on.send(()).unwrap();
    go_on.send(()).unwrap();
    assert_eq!(ask(&identity, &issued, 4, Tier::Confidential).await, Ok(Tier::Confidential));
}

#[tokio::test]
async fn a_crowd_that_asks_gpus_keeps_nobody_from_a_quote() {
    let identity = world().identity();
    let issued = identity.current().await.unwrap();
    let crowd = u32::try_from(GPU_QUEUE).unwrap();
    let crowd = Arc::clone(&identity.gpus.queue).try_acquire_many_owned(crowd).unwrap();
    assert_eq!(ask(&identity, &issued, 1, Tier::Confidential).await, Err(QuoteError::Busy));
    assert_eq!(ask(&identity, &issued, 1, Tier::Attested).await, Ok(Tier::Attested));
    drop(crowd);
    assert_eq!(ask(&identity, &issued, 2, Tier::Confidential).await, Ok(Tier::Confidential));
}

#[tokio::test(start_paused = true)]
async fn one_peer_has_gpus_asked_less_often_than_a_tee() {
    let identity = world().identity();
    let issued = identity.current().await.unwrap();
    let granted = async |number, tier| {
        let mut granted = 0;
        while ask(&identity, &issued, number, tier).await.is_ok() {
            granted += 1;
        }
        granted
    };
    assert_eq!(granted(1, Tier::Attested).await, 8);
    assert_eq!(granted(2, Tier::Confidential).await, 2);
}

#[tokio::test]
async fn a_session_is_simulated_as_far_as_what_was_asked_for() {
    for (tier, simulated) in
        [(Tier::Open, false), (Tier::Attested, true), (Tier::Confidential, true)]
    {
        let (near, far) = world().try_open(tier).await;
        assert_eq!(far.unwrap().simulated(), simulated);
        assert_eq!(near.unwrap().verdict().simulated, simulated);
    }
}
