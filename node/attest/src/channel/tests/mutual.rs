//! Sessions in which the consumer attests itself too, because the provider demands it.
//!
//! Owns: the demand, its refusals on both sides, and re-attestation in both directions.
//! Must not: touch hardware.

use super::simulated::{Turning, guest, policy, world};
use super::*;
use crate::certificate;
use crate::channel::error::Misbehaviour;
use crate::channel::tls::{
    CertificateReader, OwnCertificate, certified, client_config, server_name,
};
use crate::channel::{ConnectOptions, ConsumerDemand};
use crate::simulated::{SimulatedAttester, SimulatedGuest};
use cocoon_protocol::attest::{
    AttestResponse, EvidenceKind, IdentityRecord, Register, SessionBinding, SessionRole, Trust,
    gpu_digest,
};
use cocoon_protocol::identity::Domain;
use cocoon_protocol::limits;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

/// A provider that demands attested consumers, and a consumer of that kind.
struct Pair {
    world: World,
    demanded: Policy,
    consumer: Arc<dyn Attester>,
}

fn consumer_key() -> NodeKey {
    NodeKey::from_secret(&[2; 32])
}

impl Pair {
    fn new() -> Self {
        let consumer = Arc::new(SimulatedAttester::new(guest()));
        Self { world: world(guest()), demanded: policy(), consumer }
    }

    fn of(guest: SimulatedGuest) -> Self {
        Self { consumer: Arc::new(SimulatedAttester::new(guest)), ..Self::new() }
    }

    /// The consumer's identity, under the key of `key`.
    fn identity_of(&self, key: NodeKey) -> Arc<ChannelIdentity> {
        Arc::new(ChannelIdentity::new(IdentityOptions {
            key,
            attester: Arc::clone(&self.consumer),
            network: self.world.network,
            capabilities: [0; 32],
            configuration: [0; 32],
            model_manifest: None,
            clock: self.world.consumer_clock.clock.clone(),
        }))
    }

    fn identity(&self) -> Arc<ChannelIdentity> {
        self.identity_of(consumer_key())
    }

    fn accept_options(&self) -> AcceptOptions {
        let demand = ConsumerDemand {
            appraiser: Arc::new(Appraiser::new(self.demanded.clone())),
            network: self.world.network,
            clock: self.world.provider_clock.clock.clone(),
        };
        AcceptOptions { demand: Some(demand), ..self.world.accept_options() }
    }

    fn connect_options(&self, identity: Option<Arc<ChannelIdentity>>) -> ConnectOptions {
        ConnectOptions { identity, ..self.world.connect_options(Tier::Attested) }
    }

    async fn open_as(
        &self,
        identity: Option<Arc<ChannelIdentity>>,
    ) -> (Result<AttestedChannel, ChannelError>, Result<AcceptedChannel, ChannelError>) {
        let (near, far) = duplex(64 * 1024);
        tokio::join!(
            connect(near, self.connect_options(identity)),
            accept(far, self.world.identity(), self.accept_options())
        )
    }

    async fn open(
        &self,
    ) -> (Result<AttestedChannel, ChannelError>, Result<AcceptedChannel, ChannelError>) {
        self.open_as(Some(self.identity())).await
    }

    /// Why the provider refused; the consumer must have been told that it did.
    async fn refusal(&self) -> Refusal {
        let (connected, accepted) = self.open().await;
        assert_eq!(connected.unwrap_err(), ChannelError::RefusedByProvider);
        match accepted {
            Err(ChannelError::ConsumerRefused(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_attested_consumer_is_served_and_known() {
    let pair = Pair::new();
    let (near, far) = pair.open().await;
    let (near, far) = (near.unwrap(), far.unwrap());
    let verdict = far.verdict().unwrap();
    assert_eq!((verdict.peer, verdict.tier), (consumer(), Tier::Attested));
    assert_eq!((verdict.kind, verdict.simulated), (EvidenceKind::SimulatedTdx, true));
    assert_eq!(verdict.image.as_deref(), Some("simulated guest (NOT A TEE)"));
    assert_eq!((verdict.model_manifest, verdict.policy), (None, policy().id()));
    assert_ne!(verdict.evidence_digest, near.verdict().evidence_digest);

    let echo = tokio::spawn(echo(far));
    let (mut sender, mut receiver) = near.split();
    sender.send(frame(100_000, 1)).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().unwrap(), frame(100_000, 1));
    drop(sender);
    assert_eq!(receiver.recv().await, Ok(None));
    assert_eq!(echo.await.unwrap(), Ok(1));
}

#[tokio::test]
async fn a_consumer_s_evidence_stays_at_home_where_nobody_demands_it() {
    let pair = Pair::new();
    let (near, far) = duplex(64 * 1024);
    let (near, far) = tokio::join!(
        connect(near, pair.connect_options(Some(pair.identity()))),
        accept(far, pair.world.identity(), pair.world.accept_options())
    );
    assert!(near.is_ok());
    assert!(far.unwrap().verdict().is_none());
}

#[tokio::test]
async fn a_consumer_without_a_tee_is_told_what_is_demanded() {
    let pair = Pair::new();
    let (connected, accepted) = pair.open_as(None).await;
    assert_eq!(connected.unwrap_err(), ChannelError::AttestationDemanded);
    let missing = ChannelError::ConsumerRefused(Refusal::EvidenceMissing);
    assert_eq!(accepted.unwrap_err(), missing);
}

#[tokio::test]
async fn a_certificate_without_a_quote_is_no_evidence() {
    let pair = Pair { consumer: Arc::new(OpenAttester), ..Pair::new() };
    assert_eq!(pair.refusal().await, Refusal::EvidenceMissing);
}

#[tokio::test]
async fn consumers_that_the_policy_does_not_want_are_refused() {
    let debug = SimulatedGuest { attributes: guest().attributes | 1, ..guest() };
    assert_eq!(Pair::of(debug).refusal().await, Refusal::Debug);
    let other = Register::from_bytes([9; 48]);
    let mut firmware = guest();
    firmware.measurements.mrtd = other;
    let refusal = Pair::of(firmware).refusal().await;
    assert!(matches!(refusal, Refusal::UnknownMeasurement { .. }), "{refusal}");
    let production = Policy::new(Trust::Production, Tier::Open, policy().rules().clone()).unwrap();
    let pair = Pair { demanded: production, ..Pair::new() };
    assert_eq!(pair.refusal().await, Refusal::SimulatedNotAllowed);
}

#[tokio::test]
async fn a_policy_s_higher_minimum_holds_for_consumers_too() {
    let rules = policy().rules().clone();
    let demanded = Policy::new(Trust::Dev, Tier::Confidential, rules).unwrap();
    let pair = Pair { demanded, ..Pair::new() };
    assert_eq!(pair.refusal().await, Refusal::GpuEvidenceMissing);
}

#[tokio::test]
async fn a_genuine_consumer_s_certificate_in_another_s_connection_is_refused() {
    let pair = Pair::new();
    let thief = NodeKey::from_secret(&[9; 32]);
    let (connected, accepted) = pair.open_as(Some(pair.identity_of(thief.clone()))).await;
    assert_eq!(connected.unwrap_err(), ChannelError::RefusedByProvider);
    let wrong = Refusal::WrongPeer { dialled: consumer(), presented: thief.id() };
    assert_eq!(accepted.unwrap_err(), ChannelError::ConsumerRefused(wrong));
}

#[tokio::test]
async fn a_consumer_of_another_network_is_refused() {
    let pair = Pair::new();
    let other = World { network: NetworkId::from_name("other"), ..world(guest()) };
    let elsewhere = Pair { world: other, ..Pair::new() };
    let (connected, accepted) = pair.open_as(Some(elsewhere.identity())).await;
    assert_eq!(connected.unwrap_err(), ChannelError::RefusedByProvider);
    let error = ChannelError::ConsumerRefused(Refusal::NotSigned);
    assert_eq!(accepted.unwrap_err(), error);
}

/// A consumer's end in the hands of somebody else, up to the provider's challenge.
struct FakeConsumer {
    tls: SharedTls<DuplexStream>,
    reader: FrameReader<SharedTls<DuplexStream>>,
    request: AttestRequest,
}

impl FakeConsumer {
    async fn connect(stream: DuplexStream, pair: &Pair, own: OwnCertificate) -> Self {
        let reader = Arc::new(CertificateReader::new(pair.world.key.id(), START));
        let config = client_config(reader, Arc::new(own)).unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tls = connector.connect(server_name().unwrap(), stream).await.unwrap();
        let mut tls = SharedTls::new(tls.into());
        let policy = Policy::closed().id();
        let own = AttestRequest { nonce: [1; 32], want: Tier::Open, gpu: false, policy };
        write_frame(&mut tls, Kind::AttestRequest, &own.to_bytes()).await.unwrap();
        tls.flush().await.unwrap();
        let mut reader = FrameReader::new(tls.clone());
        let (kind, length) = reader.header().await.unwrap().unwrap();
        assert_eq!(kind, Kind::AttestResponse);
        reader.payload(length).await.unwrap();
        let (kind, length) = reader.header().await.unwrap().unwrap();
        assert_eq!(kind, Kind::AttestRequest);
        let request = AttestRequest::from_bytes(&reader.payload(length).await.unwrap()).unwrap();
        Self { tls, reader, request }
    }

    async fn send(&mut self, kind: Kind, payload: &[u8]) {
        write_frame(&mut self.tls, kind, payload).await.unwrap();
        self.tls.flush().await.unwrap();
    }

    /// The next frame's kind.
    async fn hears(&mut self) -> Kind {
        self.reader.header().await.unwrap().unwrap().0
    }

    /// Signs this session with the genuine consumer's stolen node key.
    fn signature(&self, world: &World, public_key: &[u8], role: SessionRole) -> [u8; 64] {
        let report_data = SessionBinding {
            network: &world.network,
            role,
            exporter: &self.tls.exporter(&self.request.nonce).unwrap(),
            nonce: &self.request.nonce,
            public_key,
            peer: &consumer(),
            gpu_digest: &gpu_digest(&[]),
            model_manifest: None,
        }
        .report_data();
        consumer_key().sign(Domain::SessionIdentity, report_data.as_bytes())
    }
}

/// A demanding provider against a fake consumer that shows `own` and does as `act` says.
async fn provider_against<F: Future<Output = ()>>(
    pair: &Pair,
    own: OwnCertificate,
    act: impl FnOnce(FakeConsumer) -> F,
) -> Result<AcceptedChannel, ChannelError> {
    let (near, far) = duplex(64 * 1024);
    let fake = async { act(FakeConsumer::connect(near, pair, own).await).await };
    let accepted = accept(far, pair.world.identity(), pair.accept_options());
    let (accepted, ()) = tokio::join!(accepted, fake);
    accepted
}

/// The genuine consumer's answer to `nonce` in a session with somebody else: with the attacker, whom
/// it has dialled as its provider.
async fn answer_elsewhere(
    pair: &Pair,
    identity: &Arc<ChannelIdentity>,
    request: &AttestRequest,
) -> AttestResponse {
    let issued = identity.current().await.unwrap();
    // What differs between two sessions is the exporter; the attacker can choose all the rest.
    let asker = (SessionRole::Client, pair.world.key.id());
    let answered = identity.answer(asker, request, &[0x77; 32], &issued).await.unwrap();
    AttestResponse::from_bytes(&answered.response).unwrap()
}

#[tokio::test]
async fn the_fake_consumer_itself_works() {
    // Without this, every refusal below might have another cause.
    let pair = Pair::new();
    let identity = pair.identity();
    let issued = identity.current().await.unwrap();
    let own = OwnCertificate::new(Some(Arc::clone(&issued.certified)));
    let accepted = provider_against(&pair, own, async |mut fake| {
        let exporter = fake.tls.exporter(&fake.request.nonce).unwrap();
        let asker = (SessionRole::Client, pair.world.key.id());
        let answer = identity.answer(asker, &fake.request, &exporter, &issued).await.unwrap();
        fake.send(Kind::AttestResponse, &answer.response).await;
        assert_eq!(fake.hears().await, Kind::AttestAccepted);
    });
    assert!(accepted.await.unwrap().verdict().is_some());
}

#[tokio::test]
async fn a_relay_with_every_key_of_a_consumer_but_no_tee_is_refused_by_the_quote_alone() {
    let pair = Pair::new();
    let identity = pair.identity();
    let issued = identity.current().await.unwrap();
    let own = OwnCertificate::new(Some(Arc::clone(&issued.certified)));
    let accepted = provider_against(&pair, own, async |mut fake| {
        let genuine = answer_elsewhere(&pair, &identity, &fake.request).await;
        let signature = fake.signature(&pair.world, issued.public_key(), SessionRole::Client);
        let answer = AttestResponse { signature, ..genuine };
        fake.send(Kind::AttestResponse, &answer.to_bytes()).await;
        assert_eq!(fake.hears().await, Kind::AttestRefused);
    });
    let error = ChannelError::ConsumerRefused(Refusal::NotFresh);
    assert_eq!(accepted.await.unwrap_err(), error);
}

#[tokio::test]
async fn a_provider_s_quote_reflected_as_a_consumer_s_is_refused() {
    // The attacker's machine hosts a genuine provider and steals all of its keys; the provider
    // answers in this very session, but in its own role.
    let pair = Pair::new();
    let identity = pair.identity();
    let issued = identity.current().await.unwrap();
    let own = OwnCertificate::new(Some(Arc::clone(&issued.certified)));
    let accepted = provider_against(&pair, own, async |mut fake| {
        let exporter = fake.tls.exporter(&fake.request.nonce).unwrap();
        let asker = (SessionRole::Server, pair.world.key.id());
        let answer = identity.answer(asker, &fake.request, &exporter, &issued).await.unwrap();
        let genuine = AttestResponse::from_bytes(&answer.response).unwrap();
        let signature = fake.signature(&pair.world, issued.public_key(), SessionRole::Client);
        let answer = AttestResponse { signature, ..genuine };
        fake.send(Kind::AttestResponse, &answer.to_bytes()).await;
        assert_eq!(fake.hears().await, Kind::AttestRefused);
    });
    let error = ChannelError::ConsumerRefused(Refusal::NotFresh);
    assert_eq!(accepted.await.unwrap_err(), error);
}

#[tokio::test]
async fn a_genuine_identity_quote_in_a_consumer_s_other_certificate_is_refused() {
    let pair = Pair::new();
    let identity = pair.identity();
    let issued = identity.current().await.unwrap();
    let genuine = issued.certified.cert.first().unwrap();
    let genuine = crate::certificate::SessionCertificate::read(genuine, START).unwrap();
    let record: IdentityRecord = genuine.record;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let der = certificate::issue(&key, &record, genuine.not_before, genuine.not_after).unwrap();
    let own = OwnCertificate::new(Some(certified(der, key.serialize_der()).unwrap()));
    let public_key = certificate::public_key(&key);
    let accepted = provider_against(&pair, own, async |mut fake| {
        let genuine = answer_elsewhere(&pair, &identity, &fake.request).await;
        let signature = fake.signature(&pair.world, &public_key, SessionRole::Client);
        let answer = AttestResponse { signature, ..genuine };
        fake.send(Kind::AttestResponse, &answer.to_bytes()).await;
        assert_eq!(fake.hears().await, Kind::AttestRefused);
    });
    let error = ChannelError::ConsumerRefused(Refusal::IdentityNotBound);
    assert_eq!(accepted.await.unwrap_err(), error);
}

#[tokio::test]
async fn a_job_instead_of_the_demanded_evidence_is_not_read() {
    let pair = Pair::new();
    let issued = pair.identity().current().await.unwrap();
    for (kind, expected) in [
        (Kind::Application, ChannelError::Misbehaved(Misbehaviour::UnexpectedFrame)),
        (Kind::AttestAccepted, ChannelError::Misbehaved(Misbehaviour::UnexpectedFrame)),
        (Kind::AttestRefused, ChannelError::Misbehaved(Misbehaviour::UnexpectedFrame)),
        (Kind::AttestUnable, ChannelError::ConsumerRefused(Refusal::Unable)),
        (Kind::AttestResponse, ChannelError::ConsumerRefused(Refusal::Malformed)),
    ] {
        let own = OwnCertificate::new(Some(Arc::clone(&issued.certified)));
        let accepted = provider_against(&pair, own, async |mut fake| {
            fake.send(kind, &[]).await;
            assert_eq!(fake.hears().await, Kind::AttestRefused);
        });
        assert_eq!(accepted.await.unwrap_err(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_does_not_answer_is_refused_in_time() {
    let pair = Pair::new();
    let issued = pair.identity().current().await.unwrap();
    let own = OwnCertificate::new(Some(Arc::clone(&issued.certified)));
    let accepted = provider_against(&pair, own, async |mut fake| {
        assert_eq!(fake.hears().await, Kind::AttestRefused);
    });
    let error = ChannelError::ConsumerRefused(Refusal::TimedOut);
    assert_eq!(accepted.await.unwrap_err(), error);
}

#[tokio::test]
async fn a_consumer_whose_tee_fails_says_so() {
    let attester = Turning::into(None);
    let pair = Pair { consumer: attester.clone(), ..Pair::new() };
    let identity = pair.identity();
    identity.current().await.unwrap();
    attester.turn();
    let (connected, accepted) = pair.open_as(Some(identity)).await;
    assert_eq!(connected.unwrap_err(), ChannelError::Quote(crate::QuoteError::Unavailable));
    assert_eq!(accepted.unwrap_err(), ChannelError::ConsumerRefused(Refusal::Unable));
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_its_consumer_no_longer_satisfies_the_policy() {
    let debug = SimulatedGuest { attributes: guest().attributes | 1, ..guest() };
    for (after, expected) in [(Some(debug), Refusal::Debug), (None, Refusal::Unable)] {
        let attester = Turning::into(after);
        let pair = Pair { consumer: attester.clone(), ..Pair::new() };
        let (near, far) = pair.open().await;
        let (mut near_sender, mut near_receiver) = near.unwrap().split();
        let (mut far_sender, mut far_receiver) = far.unwrap().split();
        near_sender.send(frame(10, 1)).await.unwrap();
        assert!(far_receiver.recv().await.unwrap().is_some());
        attester.turn();
        let refused = ChannelError::ConsumerRefused(expected);
        let (heard, told) = tokio::join!(far_receiver.recv(), near_receiver.recv());
        assert_eq!(heard, Err(refused.clone()));
        assert_eq!(told, Err(ChannelError::RefusedByProvider));
        assert_eq!(far_sender.send(Bytes::new()).await, Err(refused));
        assert!(near_sender.send(Bytes::new()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn both_ends_stay_attested_for_hours() {
    let pair = Pair::new();
    let (near, far) = pair.open().await;
    let (mut near_sender, mut near_receiver) = near.unwrap().split();
    let (mut far_sender, mut far_receiver) = far.unwrap().split();
    let first = far_sender.verdict().unwrap();
    for round in 0..30 {
        tokio::time::sleep(std::time::Duration::from_secs(300)).await;
        near_sender.send(frame(10, round)).await.unwrap();
        assert_eq!(far_receiver.recv().await.unwrap().unwrap(), frame(10, round));
        far_sender.send(frame(20, round)).await.unwrap();
        assert_eq!(near_receiver.recv().await.unwrap().unwrap(), frame(20, round));
    }
    let last = far_sender.verdict().unwrap();
    assert!(last.attested_at.since(first.attested_at) > Millis::from_secs(8_000));
    assert_ne!(last.evidence_digest, first.evidence_digest);
    assert_eq!(last.peer, consumer());
}

#[tokio::test]
async fn nothing_is_answered_on_the_strength_of_an_old_verdict_about_a_consumer() {
    let pair = Pair::new();
    let (near, far) = pair.open().await;
    let (_near, (mut sender, _receiver)) = (near.unwrap().split(), far.unwrap().split());
    assert_eq!(sender.send(Bytes::new()).await, Ok(()));
    pair.world.provider_clock.skip(limits::REATTEST_AFTER);
    let refused = Err(ChannelError::ConsumerRefused(Refusal::TimedOut));
    assert_eq!(sender.send(Bytes::new()).await, refused);
}
