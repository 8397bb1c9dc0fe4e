//! The attacks that are known to break such channels, by their names, with both kinds of TEE.
//!
//! Owns: one test for each attack, through the whole channel and with all that the attacker is
//! supposed to have: leaked keys are really used and quotes really relayed.
//! Must not: touch hardware.

use super::simulated::{policy, relayed, sign_for, victim};
use super::*;
use crate::certificate;
use crate::simulated::{SimulatedAttester, SimulatedGuest, SimulatedSnp, SimulatedSnpGuest};
use crate::{QuoteError, Quoted};
use cocoon_protocol::attest::{
    AttestResponse, Evidence, EvidenceKind, PolicyError, Register, ReportData, SnpCheck,
    SnpEndorsements, TcbStatus,
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

fn with(attester: Arc<dyn Attester>) -> World {
    World { attester, policy: policy(), ..World::open() }
}

fn tdx(guest: SimulatedGuest) -> World {
    with(Arc::new(SimulatedAttester::new(guest)))
}

fn snp(guest: SimulatedSnpGuest) -> World {
    with(Arc::new(SimulatedSnp::new(guest)))
}

/// An honest provider of each kind.
fn worlds() -> [World; 2] {
    [tdx(SimulatedGuest::default()), snp(SimulatedSnpGuest::default())]
}

fn refused(refusal: Refusal) -> ChannelError {
    ChannelError::Refused(refusal)
}

/// An honest TEE whose host tampers with what leaves it, or with the time at which it was made.
struct Tampering<T> {
    tee: T,
    age: Millis,
    tamper: fn(Quoted) -> Quoted,
}

impl<T> std::fmt::Debug for Tampering<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tampering").finish_non_exhaustive()
    }
}

impl<T: Attester> Attester for Tampering<T> {
    fn kind(&self) -> EvidenceKind {
        self.tee.kind()
    }

    fn quote(&self, report_data: &ReportData, now: Timestamp) -> Result<Quoted, QuoteError> {
        let then =
            Timestamp::EPOCH.after(Millis::new(now.since(Timestamp::EPOCH).get() - self.age.get()));
        self.tee.quote(report_data, then).map(self.tamper)
    }
}

#[tokio::test]
async fn honest_providers_are_accepted() {
    // Without this, every refusal below might have another cause.
    for world in worlds() {
        let (near, far) = world.try_open(Tier::Attested).await;
        assert_eq!(near.unwrap().verdict().tier, Tier::Attested);
        assert!(far.is_ok());
    }
}

#[tokio::test]
async fn diversion_to_another_genuine_provider() {
    for dialled in worlds() {
        let attester = Arc::clone(&dialled.attester);
        let diverted = World { key: NodeKey::from_secret(&[9; 32]), ..with(attester) };
        let (near, far) = duplex(64 * 1024);
        let (connected, _) = tokio::join!(
            connect(near, dialled.connect_options(Tier::Attested)),
            accept(far, diverted.identity(), diverted.accept_options())
        );
        let wrong = Refusal::WrongPeer { dialled: dialled.key.id(), presented: diverted.key.id() };
        assert_eq!(connected.unwrap_err(), refused(wrong));
    }
}

#[tokio::test]
async fn relay_with_the_leaked_tls_key() {
    // The genuine TEE answers the victim's nonce, and signs, on the attacker's own connection.
    for world in worlds() {
        let identity = world.identity();
        let stolen = Arc::clone(&identity.current().await.unwrap().config);
        let error =
            victim(&world, stolen, async |fake| relayed(&world, &identity, &fake.request).await);
        assert_eq!(error.await, refused(Refusal::NotSigned));
    }
}

#[tokio::test]
async fn relay_with_the_leaked_tls_key_and_node_key() {
    for world in worlds() {
        let identity = world.identity();
        let issued = identity.current().await.unwrap();
        let error = victim(&world, Arc::clone(&issued.config), async |fake| {
            let genuine = relayed(&world, &identity, &fake.request).await;
            AttestResponse { signature: sign_for(&world, &fake, issued.public_key()), ..genuine }
        });
        assert_eq!(error.await, refused(Refusal::NotFresh));
    }
}

#[tokio::test]
async fn replay_of_an_earlier_answer() {
    for world in worlds() {
        let identity = world.identity();
        let issued = identity.current().await.unwrap();
        let (want, policy) = (Tier::Attested, policy().id());
        let earlier = AttestRequest { nonce: [7; 32], want, gpu: false, policy };
        let recorded = relayed(&world, &identity, &earlier).await;
        let error = victim(&world, Arc::clone(&issued.config), async |fake| AttestResponse {
            signature: sign_for(&world, &fake, issued.public_key()),
            ..recorded
        });
        assert_eq!(error.await, refused(Refusal::NotFresh));
    }
}

#[tokio::test]
async fn copied_quote_in_a_certificate_of_the_attacker_s() {
    for world in worlds() {
        let identity = world.identity();
        let issued = identity.current().await.unwrap();
        let shown = issued.certified.cert.first().unwrap();
        let genuine = certificate::SessionCertificate::read(shown, START).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (from, until) = (genuine.not_before, genuine.not_after);
        let der = certificate::issue(&key, &genuine.record, from, until).unwrap();
        let public_key = certificate::public_key(&key);
        let error = victim(&world, showing(der, &key), async |fake| {
            let genuine = relayed(&world, &identity, &fake.request).await;
            AttestResponse { signature: sign_for(&world, &fake, &public_key), ..genuine }
        });
        assert_eq!(error.await, refused(Refusal::IdentityNotBound));
    }
}

#[tokio::test]
async fn downgrade_to_no_evidence() {
    for world in worlds() {
        let identity = world.identity();
        let issued = identity.current().await.unwrap();
        let error = victim(&world, Arc::clone(&issued.config), async |fake| AttestResponse {
            signature: sign_for(&world, &fake, issued.public_key()),
            model_manifest: Some([5; 32]),
            evidence: Evidence::None,
            endorsements: Bytes::new(),
            gpus: Vec::new(),
        });
        assert_eq!(error.await, refused(Refusal::EvidenceMissing));
    }
}

#[tokio::test]
async fn downgrade_to_the_quote_of_another_kind() {
    // A genuine quote of the other vendor's, from a machine that the attacker owns.
    let [tdx, snp] = worlds();
    for (world, other) in [(&tdx, &snp), (&snp, &tdx)] {
        let issued = world.identity().current().await.unwrap();
        let elsewhere = other.identity();
        let error = victim(world, Arc::clone(&issued.config), async |fake| {
            let genuine = relayed(other, &elsewhere, &fake.request).await;
            AttestResponse { signature: sign_for(world, &fake, issued.public_key()), ..genuine }
        });
        assert_eq!(error.await, refused(Refusal::IdentityNotBound));
    }
}

#[tokio::test]
async fn debug_guests() {
    let guest = SimulatedGuest::default();
    let debug = SimulatedGuest { attributes: guest.attributes | 1, ..guest };
    assert_eq!(tdx(debug).refusal(Tier::Attested).await, Refusal::Debug);
    let guest = SimulatedSnpGuest::default();
    let debug = SimulatedSnpGuest { guest_policy: guest.guest_policy | 1 << 19, ..guest };
    assert_eq!(snp(debug).refusal(Tier::Attested).await, Refusal::Debug);
}

#[tokio::test]
async fn migratable_guests() {
    let guest = SimulatedGuest::default();
    let migratable = SimulatedGuest { attributes: guest.attributes | 1 << 29, ..guest };
    assert_eq!(tdx(migratable).refusal(Tier::Attested).await, Refusal::Migratable);
    let guest = SimulatedSnpGuest::default();
    let migratable = SimulatedSnpGuest { guest_policy: guest.guest_policy | 1 << 18, ..guest };
    assert_eq!(snp(migratable).refusal(Tier::Attested).await, Refusal::Migratable);
}

#[tokio::test]
async fn tcb_lie() {
    // Old firmware that signs a report with a new level: its key was not made for that level.
    let mut lying = SimulatedSnpGuest::default();
    lying.reported_tcb.microcode += 1;
    let invalid = Refusal::ReportInvalid { check: SnpCheck::TcbBinding };
    assert_eq!(snp(lying).refusal(Tier::Attested).await, invalid);
    // TDX levels come from Intel's collateral; what it says counts.
    let status = TcbStatus::OutOfDate;
    let behind = SimulatedGuest { tcb_status: status, ..SimulatedGuest::default() };
    assert_eq!(tdx(behind).refusal(Tier::Attested).await, Refusal::TcbOutOfDate { status });
}

#[tokio::test]
async fn stale_collateral() {
    let days = |count: u64| Millis::from_secs(count * 24 * 3600);
    let tdx = |age| {
        let tee = SimulatedAttester::new(SimulatedGuest::default());
        with(Arc::new(Tampering { tee, age, tamper: |quoted| quoted }))
    };
    assert!(tdx(days(6)).try_open(Tier::Attested).await.0.is_ok());
    let refusal = tdx(days(8)).refusal(Tier::Attested).await;
    assert!(matches!(refusal, Refusal::CollateralTooOld { .. }), "{refusal}");
    let refusal = tdx(days(100)).refusal(Tier::Attested).await;
    assert_eq!(refusal, Refusal::CollateralExpired);
    let snp = |age| {
        let tee = SimulatedSnp::new(SimulatedSnpGuest::default());
        with(Arc::new(Tampering { tee, age, tamper: |quoted| quoted }))
    };
    assert!(snp(days(29)).try_open(Tier::Attested).await.0.is_ok());
    let refusal = snp(days(31)).refusal(Tier::Attested).await;
    assert!(matches!(refusal, Refusal::RevocationListTooOld { .. }), "{refusal}");
    assert_eq!(snp(days(200)).refusal(Tier::Attested).await, Refusal::RevocationListExpired);
}

#[tokio::test]
async fn revoked_ask() {
    let tee = SimulatedSnp::new(SimulatedSnpGuest::default());
    let tamper = |quoted: Quoted| {
        let endorsements = SnpEndorsements::from_bytes(&quoted.endorsements).unwrap();
        let crl = Bytes::from_static(include_bytes!("../../../testdata/snp-dev/crl-revoked.der"));
        let endorsements = SnpEndorsements { crl, ..endorsements }.to_bytes();
        Quoted { endorsements: Bytes::from(endorsements), ..quoted }
    };
    let world = with(Arc::new(Tampering { tee, age: Millis::new(0), tamper }));
    let refusal = world.refusal(Tier::Attested).await;
    assert!(matches!(refusal, Refusal::Revoked { .. }), "{refusal}");
}

#[tokio::test]
async fn zero_rtmrs() {
    // As some clouds' guests have them: nothing of the image was measured.
    let mut guest = SimulatedGuest::default();
    guest.measurements.rtmr = [Register::ZERO; 4];
    let refusal = tdx(guest).refusal(Tier::Attested).await;
    assert!(matches!(refusal, Refusal::UnknownMeasurement { .. }), "{refusal}");
    // And no policy can be written that they satisfy.
    let mut rules = policy().rules().clone();
    for image in rules.tdx.iter_mut().flat_map(|tdx| &mut tdx.images) {
        (image.rtmr0, image.rtmr1) = (vec![Register::ZERO], Register::ZERO);
        (image.rtmr2, image.rtmr3) = (Register::ZERO, Register::ZERO);
    }
    let policy = Policy::new(cocoon_protocol::attest::Trust::Dev, Tier::Open, rules);
    assert!(matches!(policy, Err(PolicyError::ZeroRegister { .. })), "{policy:?}");
}

#[tokio::test]
async fn nothing_but_the_challenge_leaves_before_the_verdict() {
    // Everything that a refused provider ever decrypts, of a consumer that sends as soon as it may.
    for world in worlds() {
        let identity = world.identity();
        let stolen = Arc::clone(&identity.current().await.unwrap().config);
        let (near, far) = duplex(64 * 1024);
        let consumer = async {
            let channel = connect(near, world.connect_options(Tier::Attested)).await?;
            let (mut sender, _receiver) = channel.split();
            sender.send(Bytes::from_static(b"the prompt")).await
        };
        let attacker = async {
            let mut tls =
                SharedTls::new(TlsAcceptor::from(stolen).accept(far).await.unwrap().into());
            let mut heard = Vec::new();
            let mut reader = FrameReader::new(tls.clone());
            while let Ok(Some((kind, length))) = reader.header().await {
                let payload = reader.payload(length).await.unwrap();
                if kind == Kind::AttestRequest {
                    let request = AttestRequest::from_bytes(&payload).unwrap();
                    let answer = relayed(&world, &identity, &request).await.to_bytes();
                    write_frame(&mut tls, Kind::AttestResponse, &answer).await.unwrap();
                    tls.flush().await.unwrap();
                }
                heard.push(kind);
            }
            heard
        };
        let (sent, heard) = tokio::join!(consumer, attacker);
        assert_eq!(sent.unwrap_err(), refused(Refusal::NotSigned));
        assert_eq!(heard, [Kind::AttestRequest]);
    }
}

#[tokio::test]
async fn a_failed_session_takes_the_memory_of_its_certificate_along() {
    let attester = super::simulated::Turning::into(Some(SimulatedGuest {
        attributes: SimulatedGuest::default().attributes | 1,
        ..SimulatedGuest::default()
    }));
    let world = with(attester.clone());
    let (identity, options) = (world.identity(), world.connect_options(Tier::Attested));
    let open = async || {
        let (near, far) = duplex(64 * 1024);
        let accepting = accept(far, Arc::clone(&identity), world.accept_options());
        tokio::join!(connect(near, options.clone()), accepting).0
    };
    assert!(open().await.is_ok());
    assert_eq!(options.appraiser.remembered(), 1);
    attester.turn();
    assert_eq!(open().await.unwrap_err(), refused(Refusal::Debug));
    assert_eq!(options.appraiser.remembered(), 0);
}

#[tokio::test]
async fn new_collateral_is_judged_anew() {
    let world = tdx(SimulatedGuest::default());
    let (identity, options) = (world.identity(), world.connect_options(Tier::Attested));
    let open = async || {
        let (near, far) = duplex(64 * 1024);
        let accepting = accept(far, Arc::clone(&identity), world.accept_options());
        tokio::join!(connect(near, options.clone()), accepting).0.map(|_| ())
    };
    // The simulation issues collateral each hour, and a certificate lasts longer.
    for (minutes, remembered) in [(0, 1), (10, 1), (60, 2)] {
        world.consumer_clock.skip(Millis::from_secs(minutes * 60));
        assert_eq!(open().await, Ok(()));
        assert_eq!(options.appraiser.remembered(), remembered, "{minutes}");
    }
}
