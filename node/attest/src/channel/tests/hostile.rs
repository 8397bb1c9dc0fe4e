//! Ends that are not honest, in tier `open`: silence, garbage, lies about who they are.
//!
//! Owns: every stage at which bytes arrive, on both sides.
//! Must not: accept a panic, a hang, or an error without a name.

use super::*;
use crate::certificate;
use crate::channel::error::Misbehaviour;
use cocoon_protocol::attest::{
    AttestResponse, Evidence, IdentityRecord, SessionBinding, SessionRole, gpu_digest,
};
use cocoon_protocol::identity::Domain;
use cocoon_protocol::limits;
use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

/// A certificate as an attacker would like it, and the server configuration that shows it.
struct Forged {
    config: Arc<ServerConfig>,
    public_key: Vec<u8>,
    certificate: Vec<u8>,
    key: KeyPair,
}

fn forge(peer: NodeId, not_before: Timestamp, not_after: Timestamp) -> Forged {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let record = IdentityRecord {
        peer,
        capabilities: [3; 32],
        configuration: [4; 32],
        evidence: Evidence::None,
    };
    let der = certificate::issue(&key, &record, not_before, not_after).unwrap();
    let (config, public_key) = (showing(der.clone(), &key), certificate::public_key(&key));
    Forged { config, public_key, certificate: der, key }
}

fn forge_now(peer: NodeId) -> Forged {
    let (not_before, not_after) = certificate::validity(START);
    forge(peer, not_before, not_after)
}

/// The answer of whoever holds `signer`, for the session in `fake`.
fn answer(world: &World, fake: &FakeProvider, forged: &Forged, signer: &NodeKey) -> AttestResponse {
    let exporter = fake.tls.exporter(&fake.request.nonce).unwrap();
    let report_data = SessionBinding {
        network: &world.network,
        role: SessionRole::Server,
        exporter: &exporter,
        nonce: &fake.request.nonce,
        public_key: &forged.public_key,
        peer: &world.key.id(),
        gpu_digest: &gpu_digest(&[]),
        model_manifest: None,
    }
    .report_data();
    AttestResponse {
        signature: signer.sign(Domain::SessionIdentity, report_data.as_bytes()),
        model_manifest: None,
        evidence: Evidence::None,
        endorsements: Bytes::new(),
        gpus: Vec::new(),
    }
}

/// Connects to a fake provider that shows `forged` and then does as `act` says.
async fn against<F>(
    world: &World,
    config: Arc<ServerConfig>,
    act: impl FnOnce(FakeProvider) -> F,
) -> Result<AttestedChannel, ChannelError>
where
    F: Future<Output = ()>,
{
    let (near, far) = duplex(64 * 1024);
    let fake = async { act(FakeProvider::accept(far, config).await).await };
    tokio::select! {
        biased;
        connected = connect(near, world.connect_options(Tier::Open)) => connected,
        () = async { fake.await; std::future::pending().await } => unreachable!(),
    }
}

fn refused(refusal: Refusal) -> ChannelError {
    ChannelError::Refused(refusal)
}

#[tokio::test]
async fn the_forge_itself_works() {
    // Without this, every refusal below might have another cause.
    let world = World::open();
    let forged = forge_now(world.key.id());
    let connected = against(&world, Arc::clone(&forged.config), async |mut fake| {
        let answer = answer(&world, &fake, &forged, &world.key);
        fake.send(Kind::AttestResponse, &answer.to_bytes()).await;
        fake.wait().await;
    });
    assert!(connected.await.is_ok());
}

#[tokio::test]
async fn another_peer_than_the_dialled_one_is_refused() {
    let world = World::open();
    let other = World { key: NodeKey::from_secret(&[9; 32]), ..World::open() };
    let (near, far) = duplex(64 * 1024);
    let (connected, accepted) = tokio::join!(
        connect(near, world.connect_options(Tier::Open)),
        accept(far, other.identity(), other.accept_options())
    );
    let (dialled, presented) = (world.key.id(), other.key.id());
    assert_eq!(connected.unwrap_err(), refused(Refusal::WrongPeer { dialled, presented }));
    assert!(accepted.is_err());
}

#[tokio::test]
async fn a_certificate_that_names_the_dialled_peer_is_not_enough() {
    let world = World::open();
    let forged = forge_now(world.key.id());
    let thief = NodeKey::from_secret(&[9; 32]);
    let connected = against(&world, Arc::clone(&forged.config), async |mut fake| {
        let answer = answer(&world, &fake, &forged, &thief);
        fake.send(Kind::AttestResponse, &answer.to_bytes()).await;
        fake.wait().await;
    });
    assert_eq!(connected.await.unwrap_err(), refused(Refusal::NotSigned));
}

#[tokio::test]
async fn a_relay_that_holds_the_tls_key_is_refused() {
    // The attacker has stolen the provider's TLS key and certificate. It accepts the victim with
    // them, and passes the victim's challenge on to the genuine provider.
    let world = World::open();
    let identity = world.identity();
    let stolen = Arc::clone(&identity.current().await.unwrap().config);
    let connected = against(&world, stolen, async |mut fake| {
        let (near, far) = duplex(64 * 1024);
        let genuine = tokio::spawn(accept(far, Arc::clone(&identity), world.accept_options()));
        let mut onward = fake_consumer(near, world.key.id()).await;
        write_frame(&mut onward, Kind::AttestRequest, &fake.request.to_bytes()).await.unwrap();
        onward.flush().await.unwrap();
        let mut reader = FrameReader::new(onward.clone());
        let (kind, length) = reader.header().await.unwrap().unwrap();
        let answer = reader.payload(length).await.unwrap();
        assert!(genuine.await.unwrap().is_ok());
        fake.send(kind, &answer).await;
        fake.wait().await;
    });
    assert_eq!(connected.await.unwrap_err(), refused(Refusal::NotSigned));
}

#[tokio::test]
async fn an_answer_of_an_earlier_session_is_refused() {
    let world = World::open();
    let forged = forge_now(world.key.id());
    let recorded = std::sync::Mutex::new(None);
    let first = against(&world, Arc::clone(&forged.config), async |mut fake| {
        let answer = answer(&world, &fake, &forged, &world.key).to_bytes();
        *recorded.lock().unwrap() = Some(answer.clone());
        fake.send(Kind::AttestResponse, &answer).await;
        fake.wait().await;
    });
    assert!(first.await.is_ok());
    let recorded = recorded.into_inner().unwrap().unwrap();
    let second = against(&world, Arc::clone(&forged.config), async |mut fake| {
        fake.send(Kind::AttestResponse, &recorded).await;
        fake.wait().await;
    });
    assert_eq!(second.await.unwrap_err(), refused(Refusal::NotSigned));
}

#[tokio::test]
async fn certificates_outside_their_dates_are_refused() {
    let at = |seconds: i64| {
        Timestamp::from_unix_secs(START.as_unix_secs().checked_add_signed(seconds).unwrap())
    };
    let six_hours = 6 * 3600;
    for (from, until, expected) in [
        (-six_hours - 10, -10, Refusal::CertificateExpired),
        (120, six_hours, Refusal::CertificateExpired),
        (-10, six_hours, Refusal::CertificateTooLong),
        (10, 5, Refusal::CertificateTooLong),
    ] {
        let world = World::open();
        let forged = forge(world.key.id(), at(from), at(until));
        let (near, far) = duplex(64 * 1024);
        let (connected, _) = tokio::join!(
            connect(near, world.connect_options(Tier::Open)),
            tokio_rustls::TlsAcceptor::from(forged.config).accept(far)
        );
        assert_eq!(connected.unwrap_err(), refused(expected), "{from}..{until}");
    }
}

#[tokio::test]
async fn a_chain_of_certificates_is_refused() {
    let world = World::open();
    let forged = forge_now(world.key.id());
    let (certificate, key) = (forged.certificate, forged.key);
    let one = super::super::tls::certified(certificate, key.serialize_der()).unwrap();
    let twice = [one.cert.clone(), one.cert.clone()].concat();
    let chain = rustls::sign::CertifiedKey::new(twice, Arc::clone(&one.key));
    let config = super::super::tls::server_config(&Arc::new(chain), false).unwrap();
    let (near, far) = duplex(64 * 1024);
    let (connected, _) = tokio::join!(
        connect(near, world.connect_options(Tier::Open)),
        TlsAcceptor::from(Arc::new(config)).accept(far)
    );
    assert_eq!(connected.unwrap_err(), refused(Refusal::CertificateInvalid));
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let world = World::open();
    let genuine = forge_now(world.key.id());
    let thief = forge_now(world.key.id());
    let shown = super::super::tls::certified(genuine.certificate, genuine.key.serialize_der());
    let own = super::super::tls::certified(thief.certificate, thief.key.serialize_der()).unwrap();
    let mixed = rustls::sign::CertifiedKey::new(shown.unwrap().cert.clone(), Arc::clone(&own.key));
    let config = super::super::tls::server_config(&Arc::new(mixed), false).unwrap();
    let (near, far) = duplex(64 * 1024);
    let (connected, _) = tokio::join!(
        connect(near, world.connect_options(Tier::Open)),
        TlsAcceptor::from(Arc::new(config)).accept(far)
    );
    let invalid = rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature);
    assert_eq!(connected.unwrap_err(), ChannelError::Tls(invalid));
}

#[tokio::test]
async fn every_challenge_has_a_nonce_of_its_own() {
    let world = World::open();
    let forged = forge_now(world.key.id());
    let nonces = std::sync::Mutex::new(std::collections::BTreeSet::new());
    for _ in 0..8 {
        let connected = against(&world, Arc::clone(&forged.config), async |mut fake| {
            nonces.lock().unwrap().insert(fake.request.nonce);
            fake.send(Kind::AttestUnable, &[]).await;
        });
        assert_eq!(connected.await.unwrap_err(), refused(Refusal::Unable));
    }
    assert_eq!(nonces.into_inner().unwrap().len(), 8);
}

#[tokio::test]
async fn a_session_of_another_offer_or_network_is_refused() {
    let world = World::open();
    let open = |options: ConnectOptions| async {
        let (near, far) = duplex(64 * 1024);
        let (connected, _) = tokio::join!(
            connect(near, options),
            accept(far, world.identity(), world.accept_options())
        );
        connected.unwrap_err()
    };
    let options = world.connect_options(Tier::Open);
    let other = ConnectOptions { capabilities: Some([8; 32]), ..options.clone() };
    assert_eq!(open(other).await, refused(Refusal::OfferMismatch));
    let other = ConnectOptions { network: NetworkId::from_name("other"), ..options };
    assert_eq!(open(other).await, refused(Refusal::NotSigned));
}

#[tokio::test]
async fn frames_out_of_turn_are_refused_by_the_consumer() {
    let world = World::open();
    let forged = forge_now(world.key.id());
    let unexpected = ChannelError::Misbehaved(Misbehaviour::UnexpectedFrame);
    for (kind, payload, expected) in [
        (Kind::Application, &b"early"[..], unexpected.clone()),
        (Kind::AttestRequest, &[1; 67][..], unexpected),
        (Kind::AttestUnable, &[][..], refused(Refusal::Unable)),
        (Kind::AttestResponse, &[][..], refused(Refusal::Malformed)),
        (Kind::AttestResponse, &[1; 400][..], refused(Refusal::Malformed)),
    ] {
        let connected = against(&world, Arc::clone(&forged.config), async |mut fake| {
            fake.send(kind, payload).await;
            fake.wait().await;
        });
        assert_eq!(connected.await.unwrap_err(), expected);
    }
}

#[tokio::test]
async fn oversized_and_truncated_answers_are_refused_by_the_consumer() {
    let world = World::open();
    let forged = forge_now(world.key.id());
    let too_long = u32::try_from(limits::ATTEST_RESPONSE_BYTES + 1).unwrap().to_be_bytes();
    let oversized = [&[2][..], &too_long].concat();
    for (bytes, expected) in [
        (&oversized[..], Misbehaviour::FrameTooLong),
        (&[2, 0, 0][..], Misbehaviour::Truncated),
        (&[2, 0, 0, 1, 0, 7][..], Misbehaviour::Truncated),
        (&[][..], Misbehaviour::Truncated),
        (&[77, 0, 0, 0, 0][..], Misbehaviour::UnknownFrame),
    ] {
        let connected = against(&world, Arc::clone(&forged.config), async |mut fake| {
            fake.send_raw(bytes).await;
            let _ = fake.tls.shutdown().await;
            fake.wait().await;
        });
        assert_eq!(connected.await.unwrap_err(), ChannelError::Misbehaved(expected));
    }
}

#[tokio::test]
async fn a_provider_refuses_a_job_before_attestation_and_other_nonsense() {
    let world = World::open();
    for (bytes, expected) in [
        (&b"\x00\x00\x00\x00\x03job"[..], Misbehaviour::FrameBeforeAttestation),
        (b"\x02\x00\x00\x00\x00", Misbehaviour::UnexpectedFrame),
        (b"\x03\x00\x00\x00\x00", Misbehaviour::UnexpectedFrame),
        (b"\x01\x00\x00\x00\x44", Misbehaviour::FrameTooLong),
        (b"\x01\x00\x00\x00\x01\x01", Misbehaviour::MalformedRequest),
        (b"\x01\x00\x00\x00\x43\x01", Misbehaviour::Truncated),
        (b"\xff\x00\x00\x00\x00", Misbehaviour::UnknownFrame),
        (b"", Misbehaviour::Truncated),
    ] {
        let (near, far) = duplex(64 * 1024);
        let accepting = tokio::spawn(accept(far, world.identity(), world.accept_options()));
        let mut tls = fake_consumer(near, world.key.id()).await;
        tls.write_all(bytes).await.unwrap();
        tls.flush().await.unwrap();
        tls.shutdown().await.unwrap();
        let error = accepting.await.unwrap().unwrap_err();
        assert_eq!(error, ChannelError::Misbehaved(expected));
    }
}

#[tokio::test]
async fn tls_for_another_purpose_is_refused_on_both_sides() {
    let world = World::open();
    let other = ChannelError::Misbehaved(Misbehaviour::OtherProtocol);

    let (near, far) = duplex(64 * 1024);
    let accepting = tokio::spawn(accept(far, world.identity(), world.accept_options()));
    let verifier = super::super::tls::CertificateReader::new(world.key.id(), START);
    let mut config = super::super::tls::client_config(Arc::new(verifier), Arc::default()).unwrap();
    config.alpn_protocols.clear();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = super::super::tls::server_name().unwrap();
    let _tls = connector.connect(name, near).await.unwrap();
    assert_eq!(accepting.await.unwrap().unwrap_err(), other);

    let forged = forge_now(world.key.id());
    let mut config = Arc::unwrap_or_clone(forged.config);
    config.alpn_protocols.clear();
    let (near, far) = duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (connected, _tls) =
        tokio::join!(connect(near, world.connect_options(Tier::Open)), acceptor.accept(far));
    assert_eq!(connected.unwrap_err(), other);
}

/// A consumer's end after a genuine attestation, in the hands of somebody else.
async fn attested_consumer(
    world: &World,
) -> (SharedTls<DuplexStream>, FrameReader<SharedTls<DuplexStream>>, AcceptedChannel) {
    let (near, far) = duplex(64 * 1024);
    let accepting = tokio::spawn(accept(far, world.identity(), world.accept_options()));
    let mut tls = fake_consumer(near, world.key.id()).await;
    let request = request(1);
    write_frame(&mut tls, Kind::AttestRequest, &request).await.unwrap();
    tls.flush().await.unwrap();
    let mut reader = FrameReader::new(tls.clone());
    let (_, length) = reader.header().await.unwrap().unwrap();
    reader.payload(length).await.unwrap();
    (tls, reader, accepting.await.unwrap().unwrap())
}

fn request(nonce: u8) -> Vec<u8> {
    let policy = Policy::closed().id();
    AttestRequest { nonce: [nonce; 32], want: Tier::Open, gpu: false, policy }.to_bytes()
}

#[tokio::test]
async fn a_consumer_cannot_have_quotes_made_in_quick_succession() {
    let world = World::open();
    let (mut tls, _reader, channel) = attested_consumer(&world).await;
    write_frame(&mut tls, Kind::AttestRequest, &request(2)).await.unwrap();
    tls.flush().await.unwrap();
    let (_sender, mut receiver) = channel.split();
    let error = receiver.recv().await.unwrap_err();
    assert_eq!(error, ChannelError::Misbehaved(Misbehaviour::TooManyRequests));
}

#[tokio::test]
async fn an_open_session_refuses_nonsense_at_the_provider() {
    for (bytes, expected) in [
        (&b"\x02\x00\x00\x00\x00"[..], Misbehaviour::UnexpectedFrame),
        (b"\x00\x7f\xff\xff\xff", Misbehaviour::FrameTooLong),
        (b"\x00\x00\x00\x00\x09short", Misbehaviour::Truncated),
        (b"\x55\x00\x00\x00\x00", Misbehaviour::UnknownFrame),
    ] {
        let world = World::open();
        let (mut tls, _reader, channel) = attested_consumer(&world).await;
        tls.write_all(bytes).await.unwrap();
        tls.flush().await.unwrap();
        tls.shutdown().await.unwrap();
        let (_sender, mut receiver) = channel.split();
        assert_eq!(receiver.recv().await, Err(ChannelError::Misbehaved(expected)));
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_session() {
    let world = World::open();
    let forged = forge_now(world.key.id());
    let (near, far) = duplex(64 * 1024);
    let fake = async {
        let mut fake = FakeProvider::accept(far, Arc::clone(&forged.config)).await;
        let answer = answer(&world, &fake, &forged, &world.key).to_bytes();
        fake.send(Kind::AttestResponse, &answer).await;
        fake.send(Kind::AttestResponse, &answer).await;
        fake
    };
    let (channel, fake) = tokio::join!(connect(near, world.connect_options(Tier::Open)), fake);
    let (_sender, mut receiver) = channel.unwrap().split();
    let unexpected = ChannelError::Misbehaved(Misbehaviour::UnexpectedFrame);
    assert_eq!(receiver.recv().await, Err(unexpected));
    drop(fake);
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_never_taken_for_a_goodbye() {
    let world = World::open();
    let (tls, reader, channel) = attested_consumer(&world).await;
    let (_sender, mut receiver) = channel.split();
    drop((tls, reader));
    let truncated = ChannelError::Misbehaved(Misbehaviour::Truncated);
    assert_eq!(receiver.recv().await, Err(truncated));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_every_stage_in_time() {
    let world = World::open();
    // Nobody speaks TLS.
    let (near, _far) = duplex(1024);
    let connected = connect(near, world.connect_options(Tier::Open)).await;
    assert_eq!(connected.unwrap_err(), ChannelError::TimedOut);
    let (_near, far) = duplex(1024);
    let accepted = accept(far, world.identity(), world.accept_options()).await;
    assert_eq!(accepted.unwrap_err(), ChannelError::TimedOut);

    // The provider falls silent after the challenge, the consumer before it.
    let forged = forge_now(world.key.id());
    let connected = against(&world, forged.config, FakeProvider::wait).await;
    assert_eq!(connected.unwrap_err(), refused(Refusal::TimedOut));
    let (near, far) = duplex(64 * 1024);
    let (accepted, _tls) = tokio::join!(
        accept(far, world.identity(), world.accept_options()),
        fake_consumer(near, world.key.id())
    );
    assert_eq!(accepted.unwrap_err(), ChannelError::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_stops_attesting_loses_the_session() {
    let world = World::open();
    let forged = forge_now(world.key.id());
    let (near, far) = duplex(64 * 1024);
    let fake = async {
        let mut fake = FakeProvider::accept(far, Arc::clone(&forged.config)).await;
        let answer = answer(&world, &fake, &forged, &world.key).to_bytes();
        fake.send(Kind::AttestResponse, &answer).await;
        fake
    };
    let (channel, fake) = tokio::join!(connect(near, world.connect_options(Tier::Open)), fake);
    let (mut sender, mut receiver) = channel.unwrap().split();
    let timed_out = refused(Refusal::TimedOut);
    assert_eq!(receiver.recv().await, Err(timed_out.clone()));
    assert_eq!(sender.send(Bytes::new()).await, Err(timed_out));
    drop(fake);
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn garbage_instead_of_tls_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        run(async {
            let world = World::open();
            let (near, mut far) = duplex(64 * 1024);
            let connecting = tokio::spawn(connect(near, world.connect_options(Tier::Open)));
            far.write_all(&bytes).await.unwrap();
            far.shutdown().await.unwrap();
            assert!(connecting.await.unwrap().is_err());
            let (mut near, far) = duplex(64 * 1024);
            let accepting = tokio::spawn(accept(far, world.identity(), world.accept_options()));
            near.write_all(&bytes).await.unwrap();
            near.shutdown().await.unwrap();
            assert!(accepting.await.unwrap().is_err());
        });
    }

    #[test]
    fn garbage_after_the_handshake_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        run(async {
            let world = World::open();
            let forged = forge_now(world.key.id());
            let connected = against(&world, forged.config, async |mut fake| {
                fake.send_raw(&bytes).await;
                let _ = fake.tls.shutdown().await;
                fake.wait().await;
            });
            assert!(connected.await.is_err());
            let (near, far) = duplex(64 * 1024);
            let accepting = tokio::spawn(accept(far, world.identity(), world.accept_options()));
            let mut tls = fake_consumer(near, world.key.id()).await;
            let _ = tls.write_all(&bytes).await;
            let _ = tls.shutdown().await;
            assert!(accepting.await.unwrap().is_err());
        });
    }

    #[test]
    fn a_mutated_answer_is_refused(position: prop::sample::Index, mask in 1..=255_u8) {
        run(async {
            let world = World::open();
            let forged = forge_now(world.key.id());
            let connected = against(&world, Arc::clone(&forged.config), async |mut fake| {
                let mut answer = answer(&world, &fake, &forged, &world.key).to_bytes();
                let position = position.index(answer.len());
                answer[position] ^= mask;
                fake.send(Kind::AttestResponse, &answer).await;
                fake.wait().await;
            });
            assert!(connected.await.is_err());
        });
    }
}
