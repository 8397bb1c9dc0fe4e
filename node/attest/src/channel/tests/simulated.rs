//! Sessions with a (simulated) TEE: what the evidence must hold against.
//!
//! Owns: every refusal that needs a quote to be made. Must not: touch hardware.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::certificate;
use crate::channel::challenge::Challenger;
use crate::simulated::{
    SimulatedAttester, SimulatedGuest, SimulatedSnp, SimulatedSnpGuest, dev_policy,
};
use crate::{QuoteError, Quoted, parse_policy};
use cocoon_protocol::attest::{
    AttestResponse, EvidenceKind, IdentityRecord, Measured, QuoteCheck, Register, ReportData,
    Rules, SessionBinding, SessionRole, TcbStatus, Trust, gpu_digest,
};
use cocoon_protocol::identity::Domain;
use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

pub(super) fn policy() -> Policy {
    parse_policy(&dev_policy()).unwrap()
}

pub(super) fn world(guest: SimulatedGuest) -> World {
    let attester = Arc::new(SimulatedAttester::new(guest));
    World { attester, policy: policy(), ..World::open() }
}

pub(super) fn guest() -> SimulatedGuest {
    SimulatedGuest::default()
}

/// What the consumer says to a provider that runs `guest`.
async fn refusal_of(guest: SimulatedGuest) -> Refusal {
    world(guest).refusal(Tier::Attested).await
}

#[tokio::test]
async fn a_simulated_tee_is_attested_and_labelled_as_simulated() {
    let world = world(guest());
    let (near, far) = world.try_open(Tier::Attested).await;
    let (near, far) = (near.unwrap(), far.unwrap());
    let verdict = near.verdict();
    assert_eq!((verdict.kind, verdict.evidence_digest), (far.kind(), far.evidence_digest()));
    assert_eq!((verdict.tier, verdict.simulated), (Tier::Attested, true));
    assert_eq!(verdict.kind, EvidenceKind::SimulatedTdx);
    assert_eq!(verdict.image.as_deref(), Some("simulated guest (NOT A TEE)"));
    assert_eq!(verdict.measurements, Some(Measured::Tdx(guest().measurements)));
    assert_eq!(verdict.policy, policy().id());

    let echo = tokio::spawn(echo(far));
    let (mut sender, mut receiver) = near.split();
    sender.send(frame(100_000, 1)).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().unwrap(), frame(100_000, 1));
    drop(sender);
    assert_eq!(receiver.recv().await, Ok(None));
    assert_eq!(echo.await.unwrap(), Ok(1));
}

#[tokio::test]
async fn a_simulated_sev_snp_guest_is_attested_and_labelled_as_simulated() {
    let guest = SimulatedSnpGuest::default();
    let attester = Arc::new(SimulatedSnp::new(guest));
    let world = World { attester, policy: policy(), ..World::open() };
    let (near, far) = world.try_open(Tier::Attested).await;
    let (near, _far) = (near.unwrap(), far.unwrap());
    let verdict = near.verdict();
    assert_eq!((verdict.tier, verdict.simulated), (Tier::Attested, true));
    assert_eq!(verdict.kind, EvidenceKind::SimulatedSnp);
    assert_eq!(verdict.measurements, Some(Measured::Snp(guest.measurements)));

    let debug = SimulatedSnpGuest { guest_policy: guest.guest_policy | 1 << 19, ..guest };
    let world = World { attester: Arc::new(SimulatedSnp::new(debug)), ..world };
    assert_eq!(world.refusal(Tier::Attested).await, Refusal::Debug);
}

#[tokio::test]
async fn who_asks_for_tier_open_gets_it_without_a_quote() {
    let world = world(guest());
    let (near, _far) = world.try_open(Tier::Open).await;
    let near = near.unwrap();
    assert_eq!((near.verdict().tier, near.verdict().kind), (Tier::Open, EvidenceKind::None));
    assert!(!near.verdict().simulated);
}

#[tokio::test]
async fn confidential_needs_more_than_a_cpu() {
    let world = world(guest());
    assert_eq!(world.refusal(Tier::Confidential).await, Refusal::GpuEvidenceMissing);
}

#[tokio::test]
async fn guests_that_the_policy_does_not_want_are_refused() {
    let other = Register::from_bytes([9; 48]);
    let mut firmware = guest();
    firmware.measurements.mrtd = other;
    let register = "mrtd";
    let unknown = |value, differs| Refusal::UnknownMeasurement { register, value, differs };
    assert_eq!(refusal_of(firmware).await, unknown(other, None));
    let mut command_line = guest();
    command_line.measurements.rtmr[2] = other;
    let mrtd = guest().measurements.mrtd;
    assert_eq!(refusal_of(command_line).await, unknown(mrtd, Some("rtmr2")));

    let debug = SimulatedGuest { attributes: guest().attributes | 1, ..guest() };
    assert_eq!(refusal_of(debug).await, Refusal::Debug);
    let unprotected = SimulatedGuest { attributes: 0, ..guest() };
    let invalid = Refusal::QuoteInvalid { check: QuoteCheck::Attributes };
    assert_eq!(refusal_of(unprotected).await, invalid);

    for status in [TcbStatus::OutOfDate, TcbStatus::SwHardeningNeeded] {
        let behind = SimulatedGuest { tcb_status: status, ..guest() };
        assert_eq!(refusal_of(behind).await, Refusal::TcbOutOfDate { status });
    }
    let superseded = SimulatedGuest { tcb_evaluation_data_number: 0, ..guest() };
    let outdated = Refusal::CollateralOutdated { number: 0, minimum: 1 };
    assert_eq!(refusal_of(superseded).await, outdated);
}

#[tokio::test]
async fn a_production_policy_refuses_the_simulation_whatever_it_lists() {
    let rules = policy().rules().clone();
    let production = Policy::new(Trust::Production, Tier::Open, rules).unwrap();
    let world = World { policy: production, ..world(guest()) };
    assert_eq!(world.refusal(Tier::Attested).await, Refusal::SimulatedNotAllowed);
}

#[tokio::test]
async fn a_policy_without_images_denies() {
    let (register, value) = ("mrtd", guest().measurements.mrtd);
    let unknown = Refusal::UnknownMeasurement { register, value, differs: None };
    let mut empty = policy().tdx().cloned().unwrap();
    empty.images.clear();
    for tdx in [Some(empty), None] {
        let rules = Rules { tdx, ..Rules::default() };
        let policy = Policy::new(Trust::Dev, Tier::Open, rules).unwrap();
        let world = World { policy, ..world(guest()) };
        assert_eq!(world.refusal(Tier::Attested).await, unknown);
    }
}

#[tokio::test]
async fn another_genuine_provider_with_the_same_image_is_refused() {
    let dialled = world(guest());
    let diverted = World { key: NodeKey::from_secret(&[9; 32]), ..world(guest()) };
    let (near, far) = duplex(64 * 1024);
    let (connected, _) = tokio::join!(
        connect(near, dialled.connect_options(Tier::Attested)),
        accept(far, diverted.identity(), diverted.accept_options())
    );
    let wrong = Refusal::WrongPeer { dialled: dialled.key.id(), presented: diverted.key.id() };
    assert_eq!(connected.unwrap_err(), ChannelError::Refused(wrong));
}

/// A genuine provider's answer to `request` on the attacker's own connection.
pub(super) async fn relayed(
    world: &World,
    identity: &Arc<ChannelIdentity>,
    request: &AttestRequest,
) -> AttestResponse {
    let (near, far) = duplex(64 * 1024);
    let genuine = tokio::spawn(accept(far, Arc::clone(identity), world.accept_options()));
    let mut onward = fake_consumer(near, world.key.id()).await;
    write_frame(&mut onward, Kind::AttestRequest, &request.to_bytes()).await.unwrap();
    onward.flush().await.unwrap();
    let mut reader = FrameReader::new(onward);
    let (_, length) = reader.header().await.unwrap().unwrap();
    let answer = reader.payload(length).await.unwrap();
    assert!(genuine.await.unwrap().is_ok());
    AttestResponse::from_bytes(&answer).unwrap()
}

/// Signs the victim's session with the provider's stolen node key.
pub(super) fn sign_for(world: &World, fake: &FakeProvider, public_key: &[u8]) -> [u8; 64] {
    let report_data = SessionBinding {
        network: &world.network,
        role: SessionRole::Server,
        exporter: &fake.tls.exporter(&fake.request.nonce).unwrap(),
        nonce: &fake.request.nonce,
        public_key,
        peer: &world.key.id(),
        gpu_digest: &gpu_digest(&[]),
        model_manifest: Some(&[5; 32]),
    }
    .report_data();
    world.key.sign(Domain::SessionIdentity, report_data.as_bytes())
}

/// The victim connects to an attacker who shows `config` and answers what `act` returns.
pub(super) async fn victim<F: Future<Output = AttestResponse>>(
    world: &World,
    config: Arc<ServerConfig>,
    act: impl FnOnce(FakeProvider) -> F,
) -> ChannelError {
    let (near, far) = duplex(64 * 1024);
    let attacker = async {
        let fake = FakeProvider::accept(far, config).await;
        let mut tls = fake.tls.clone();
        let answer = act(fake).await.to_bytes();
        write_frame(&mut tls, Kind::AttestResponse, &answer).await.unwrap();
        tls.flush().await.unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        connected = connect(near, world.connect_options(Tier::Attested)) => connected.unwrap_err(),
        () = attacker => unreachable!(),
    }
}

#[tokio::test]
async fn a_relay_with_every_key_but_no_tee_is_refused_by_the_quote_alone() {
    // The attacker holds the provider's TLS key, certificate and node key, and has the genuine
    // TEE answer the victim's own nonce on another connection. Only the exporter differs.
    let world = world(guest());
    let identity = world.identity();
    let issued = identity.current().await.unwrap();
    let error = victim(&world, Arc::clone(&issued.config), async |fake| {
        let genuine = relayed(&world, &identity, &fake.request).await;
        AttestResponse { signature: sign_for(&world, &fake, issued.public_key()), ..genuine }
    });
    assert_eq!(error.await, ChannelError::Refused(Refusal::NotFresh));
}

#[tokio::test]
async fn a_genuine_identity_quote_in_another_certificate_is_refused() {
    let world = world(guest());
    let identity = world.identity();
    let issued = identity.current().await.unwrap();
    // The genuine record, read from the genuine certificate, under the attacker's TLS key.
    let (near, far) = duplex(64 * 1024);
    let accepting = tokio::spawn(accept(far, Arc::clone(&identity), world.accept_options()));
    let certificate = fake_consumer(near, world.key.id()).await.certificate().unwrap();
    accepting.abort();
    drop(issued);
    let genuine = crate::certificate::SessionCertificate::read(&certificate, START).unwrap();
    let record: IdentityRecord = genuine.record;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let der = certificate::issue(&key, &record, genuine.not_before, genuine.not_after).unwrap();
    let public_key = certificate::public_key(&key);
    let error = victim(&world, showing(der, &key), async |fake| {
        let genuine = relayed(&world, &identity, &fake.request).await;
        AttestResponse { signature: sign_for(&world, &fake, &public_key), ..genuine }
    });
    assert_eq!(error.await, ChannelError::Refused(Refusal::IdentityNotBound));
}

/// An attester whose guest changes for the worse, or whose TEE fails, when told.
#[derive(Debug)]
pub(super) struct Turning {
    before: SimulatedAttester,
    after: Option<SimulatedAttester>,
    turned: AtomicBool,
}

impl Turning {
    pub(super) fn into(after: Option<SimulatedGuest>) -> Arc<Self> {
        Arc::new(Self {
            before: SimulatedAttester::new(guest()),
            after: after.map(SimulatedAttester::new),
            turned: AtomicBool::new(false),
        })
    }

    pub(super) fn turn(&self) {
        self.turned.store(true, Ordering::Relaxed);
    }
}

impl Attester for Turning {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::SimulatedTdx
    }

    fn quote(&self, report_data: &ReportData, now: Timestamp) -> Result<Quoted, QuoteError> {
        if !self.turned.load(Ordering::Relaxed) {
            return self.before.quote(report_data, now);
        }
        self.after.as_ref().ok_or(QuoteError::Unavailable)?.quote(report_data, now)
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_its_guest_no_longer_satisfies_the_policy() {
    let debug = SimulatedGuest { attributes: guest().attributes | 1, ..guest() };
    for (after, expected) in [(Some(debug), Refusal::Debug), (None, Refusal::Unable)] {
        let attester = Turning::into(after);
        let world = World { attester: attester.clone(), ..world(guest()) };
        let (near, far) = world.try_open(Tier::Attested).await;
        let echo = tokio::spawn(echo(far.unwrap()));
        let (mut sender, mut receiver) = near.unwrap().split();
        sender.send(frame(10, 1)).await.unwrap();
        assert!(receiver.recv().await.unwrap().is_some());
        attester.turn();
        let refused = ChannelError::Refused(expected);
        assert_eq!(receiver.recv().await, Err(refused.clone()));
        assert_eq!(sender.send(Bytes::new()).await, Err(refused));
        drop((sender, receiver));
        assert!(echo.await.unwrap().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn an_attested_session_lives_for_hours_on_fresh_evidence() {
    let world = world(guest());
    let (near, far) = world.try_open(Tier::Attested).await;
    let echo = tokio::spawn(echo(far.unwrap()));
    let (mut sender, mut receiver) = near.unwrap().split();
    let first = sender.verdict().unwrap();
    for round in 0..30 {
        tokio::time::sleep(std::time::Duration::from_secs(300)).await;
        sender.send(frame(10, round)).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), frame(10, round));
    }
    let last = sender.verdict().unwrap();
    assert!(last.attested_at.since(first.attested_at) > Millis::from_secs(8_000));
    assert_ne!(last.evidence_digest, first.evidence_digest);
    drop(sender);
    assert_eq!(receiver.recv().await, Ok(None));
    assert_eq!(echo.await.unwrap(), Ok(30));
}

#[tokio::test]
async fn a_tee_that_fails_is_reported_on_both_sides() {
    let attester = Turning::into(None);
    let world = World { attester: attester.clone(), ..world(guest()) };
    let identity = world.identity();
    identity.current().await.unwrap();
    attester.turn();
    let (near, far) = duplex(64 * 1024);
    let (connected, accepted) = tokio::join!(
        connect(near, world.connect_options(Tier::Attested)),
        accept(far, identity, world.accept_options())
    );
    assert_eq!(connected.unwrap_err(), ChannelError::Refused(Refusal::Unable));
    assert_eq!(accepted.unwrap_err(), ChannelError::Quote(QuoteError::Unavailable));
}

#[tokio::test]
async fn one_peer_cannot_keep_the_tee_busy() {
    let world = world(guest());
    let identity = world.identity();
    let issued = identity.current().await.unwrap();
    let ask = async |peer, want| {
        let request = AttestRequest { nonce: [1; 32], want, gpu: false, policy: policy().id() };
        identity.answer((SessionRole::Server, peer), &request, &[2; 32], &issued).await.map(|_| ())
    };
    while ask(consumer(), Tier::Attested).await.is_ok() {}
    assert_eq!(ask(consumer(), Tier::Attested).await, Err(QuoteError::Quota));
    assert_eq!(ask(consumer(), Tier::Open).await, Ok(()));
    assert_eq!(ask(world.key.id(), Tier::Attested).await, Ok(()));
}

/// The challenger of a fresh session, with a genuine answer to it.
async fn genuine_answer(world: &World) -> (Arc<Challenger>, [u8; 32], [u8; 32], Vec<u8>) {
    let identity = world.identity();
    let issued = identity.current().await.unwrap();
    let (near, far) = duplex(64 * 1024);
    let accepting = tokio::spawn(accept(far, Arc::clone(&identity), world.accept_options()));
    let tls = fake_consumer(near, world.key.id()).await;
    accepting.abort();
    let options = world.connect_options(Tier::Attested);
    let certificate =
        certificate::SessionCertificate::read(&tls.certificate().unwrap(), START).unwrap();
    let challenger = Arc::new(Challenger {
        peer: options.dialled,
        role: SessionRole::Server,
        network: options.network,
        appraiser: options.appraiser,
        want: Tier::Attested,
        capabilities: options.capabilities,
        clock: options.clock,
        certificate,
    });
    let request = challenger.request().unwrap();
    let exporter = tls.exporter(&request.nonce).unwrap();
    let answer = {
        let asker = (SessionRole::Server, consumer());
        identity.answer(asker, &request, &exporter, &issued).await.unwrap().response
    };
    (challenger, request.nonce, exporter, answer)
}

#[test]
fn an_altered_answer_is_refused_or_proves_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(async { world(guest()) });
    let (challenger, nonce, exporter, answer) = runtime.block_on(genuine_answer(&world));
    let judge =
        |answer: Vec<u8>| runtime.block_on(challenger.judge(nonce, exporter, Bytes::from(answer)));
    let whole = judge(answer.clone()).unwrap();
    let config = ProptestConfig::with_cases(200);
    let strategy = (0..answer.len(), 1..=255_u8);
    proptest::test_runner::TestRunner::new(config)
        .run(&strategy, |(position, mask)| {
            let mut altered = answer.clone();
            altered[position] ^= mask;
            // Collateral and the certificates in a quote hold bytes that nobody reads.
            if let Ok(verdict) = judge(altered) {
                prop_assert!(position > 64 + 36);
                prop_assert_eq!(verdict.measurements, whole.measurements);
                prop_assert_eq!(verdict.image, whole.image.clone());
            }
            Ok(())
        })
        .unwrap();
}
