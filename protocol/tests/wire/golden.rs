//! Frozen bytes of every message. Whoever changes one of them breaks every node that is running.
//!
//! Owns: the values behind `testdata/wire/*.hex`, whose bytes were made by Google's own protobuf
//! from our schemas, and the rule that each of these files is read.
//! Must not: make the files from our own encoder, which would only test it against itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::channel::{JobTotal, SignedVoucher, Voucher};
use cocoon_protocol::identity::{JobId, ModelHash, NodeId, NodeKey, TonAddress};
use cocoon_protocol::job::{JobSpec, Prompt, ProviderRefusal, Role, Sampling, Turn};
use cocoon_protocol::offer::{Load, ModelOffer, Offer, SignedOffer};
use cocoon_protocol::receipt::SignedReceipt;
use cocoon_protocol::units::{Millis, NanoTon, PricePerMillion, Prices, Timestamp, Tokens};
use cocoon_protocol::wire::{JobRequest, SessionMessage};

/// Counts up from `first`, so that neither a swap nor a shift goes unseen.
fn counting<const N: usize>(first: u8) -> [u8; N] {
    let mut next = first;
    [(); N].map(|()| {
        let this = next;
        next = next.wrapping_add(1);
        this
    })
}

fn job() -> JobId {
    JobId::from_bytes(counting(0x10))
}

fn voucher() -> SignedVoucher {
    SignedVoucher {
        voucher: Voucher {
            vault: TonAddress { workchain: -1, hash: counting(0x20) },
            provider: NodeId::from_bytes(counting(0x40)),
            epoch: 7,
            cumulative: NanoTon::from_nano(1_000_000_007),
            receipts_root: counting(0x60),
        },
        signature: counting(0x80),
    }
}

fn request(prompt: Prompt) -> SessionMessage {
    SessionMessage::JobRequest(JobRequest {
        job: job(),
        offer_sequence: 1_800_000_000_000,
        spec: JobSpec {
            model: ModelHash::from_bytes(counting(0xa0)),
            prompt,
            sampling: Sampling {
                temperature: 0.5,
                top_p: 0.25,
                top_k: 40,
                min_p: 0.125,
                frequency_penalty: -1.5,
                presence_penalty: 2.0,
                seed: 0x0102_0304_0506_0708,
            },
            stop: vec!["\n\n".into(), "END".into()],
            max_completion: Tokens::new(256),
        },
        salt: counting(0xc0),
    })
}

fn chat() -> Prompt {
    let turn = |role, content: &str| Turn { role, content: content.to_owned() };
    Prompt::Chat(vec![
        turn(Role::System, "Be brief."),
        turn(Role::User, "Grüße?"),
        turn(Role::Assistant, ""),
    ])
}

fn refusals() -> Vec<(&'static str, ProviderRefusal)> {
    let bad_request = "no such role".to_owned();
    vec![
        ("busy", ProviderRefusal::Busy { retry_after: Millis::new(2_000) }),
        ("unknown-model", ProviderRefusal::UnknownModel),
        (
            "context-exceeded",
            ProviderRefusal::ContextExceeded {
                prompt: Tokens::new(9_000),
                context: Tokens::new(8_192),
            },
        ),
        ("bad-request", ProviderRefusal::BadRequest { reason: bad_request }),
        (
            "no-headroom",
            ProviderRefusal::NoHeadroom {
                headroom: NanoTon::from_nano(5),
                needed: NanoTon::from_nano(1_000_000),
            },
        ),
        ("stale-offer", ProviderRefusal::StaleOffer),
        ("draining", ProviderRefusal::Draining),
        ("engine-failed", ProviderRefusal::EngineFailed),
    ]
}

/// Every message under the name of its file.
fn messages() -> Vec<(String, SessionMessage)> {
    let job = job();
    let refused = refusals().into_iter().map(|(name, refusal)| {
        (format!("job-refused-{name}"), SessionMessage::JobRefused { job, refusal })
    });
    let vault = TonAddress { workchain: 0, hash: counting(0x20) };
    let seen = SessionMessage::ChannelState {
        allocation: Some((7, NanoTon::from_nano(2_000_000_000))),
        settled: NanoTon::from_nano(500),
        latest: Some(voucher()),
        owed: NanoTon::ZERO,
    };
    let indebted = SessionMessage::ChannelState {
        allocation: Some((7, NanoTon::from_nano(2_000_000_000))),
        settled: NanoTon::from_nano(500),
        latest: Some(voucher()),
        owed: NanoTon::from_nano(1_921),
    };
    let unseen = SessionMessage::ChannelState {
        allocation: None,
        settled: NanoTon::ZERO,
        latest: None,
        owed: NanoTon::ZERO,
    };
    let paid = JobTotal { job, total: NanoTon::from_nano(42) };
    let receipt = SignedReceipt { bytes: b"receipt".to_vec(), signature: counting(0x80) };
    let chunk = |text: &str, completion| SessionMessage::JobChunk {
        job,
        text: text.to_owned(),
        completion: Tokens::new(completion),
    };
    let payment_refused = |job, reason: &str| {
        let reason = reason.to_owned();
        SessionMessage::PaymentRefused { job, reason }
    };
    let rest = vec![
        ("channel-hello", SessionMessage::ChannelHello { vault, proof: counting(0x90) }),
        ("channel-state", seen),
        ("channel-state-indebted", indebted),
        ("channel-state-unseen", unseen),
        ("job-request-chat", request(chat())),
        ("job-request-text", request(Prompt::Text("Once upon a time".into()))),
        ("payment", SessionMessage::Payment { voucher: voucher(), total: Some(paid) }),
        ("payment-for-no-job", SessionMessage::Payment { voucher: voucher(), total: None }),
        ("job-cancel", SessionMessage::JobCancel { job }),
        ("job-started", SessionMessage::JobStarted { job, prompt: Tokens::new(300) }),
        // Text may hold whatever a model says, control characters included.
        ("job-chunk", chunk("a\n\u{7}ß", 17)),
        ("job-chunk-without-text", chunk("", 18)),
        ("job-finished", SessionMessage::JobFinished { job, receipt }),
        ("payment-refused", payment_refused(Some(job), "another vault")),
        ("payment-refused-for-no-job", payment_refused(None, "another key")),
    ];
    rest.into_iter().map(|(name, message)| (name.to_owned(), message)).chain(refused).collect()
}

fn offer() -> Offer {
    Offer {
        provider: NodeKey::from_secret(&[1; 32]).id(),
        sequence: 7,
        issued: Timestamp::from_unix_millis(1_800_000_000_000),
        expires: Timestamp::from_unix_millis(1_800_000_300_000),
        network: -7_337,
        models: vec![ModelOffer {
            model: ModelHash::from_bytes(counting(0xa0)),
            name: "smollm2-135m".into(),
            quantisation: "Q4_1".into(),
            context: Tokens::new(8_192),
            prices: Prices {
                prompt: PricePerMillion::from_nano(1_000),
                completion: PricePerMillion::from_nano(2_000),
            },
        }],
        tier: Tier::Attested,
        evidence_digest: Some(counting(0x60)),
        payout: TonAddress { workchain: -1, hash: counting(0x20) },
        load: Load::Busy,
        region: "eu-central".into(),
        // Left out: the bytes are those of before there was such a field.
        engine: String::new(),
    }
}

/// The committed files by name; each must be taken out by a test's expectation.
struct Vectors(BTreeMap<String, Vec<u8>>);

impl Vectors {
    fn read() -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/wire");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| {
            let path = entry.unwrap().path();
            assert_eq!(path.extension().unwrap(), "hex", "{} is no vector", path.display());
            let text = std::fs::read_to_string(&path).unwrap();
            let digits: String = text
                .lines()
                .map(|line| line.split('#').next().unwrap_or_default())
                .flat_map(str::chars)
                .filter(|character| !character.is_whitespace())
                .collect();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, hex::decode(digits).unwrap())
        });
        Self(files.collect())
    }

    fn take(&mut self, name: &str) -> Vec<u8> {
        self.0.remove(name).unwrap_or_else(|| panic!("testdata/wire/{name}.hex is missing"))
    }
}

#[test]
fn every_message_has_the_frozen_bytes_and_every_file_is_read() {
    let mut vectors = Vectors::read();
    for (name, message) in messages() {
        let bytes = vectors.take(&name);
        assert_eq!(hex::encode(message.encode()), hex::encode(&bytes), "{name} is encoded");
        assert_eq!(SessionMessage::decode(&bytes), Ok(message), "{name} is decoded");
    }
    let bytes = vectors.take("signed-offer");
    let signed = SignedOffer::from_bytes(bytes.clone());
    let verified = signed.verify(offer().issued).unwrap();
    assert_eq!(verified.offer(), &offer());
    let ours = offer().sign(&NodeKey::from_secret(&[1; 32]));
    assert_eq!(hex::encode(ours.as_bytes()), hex::encode(&bytes));
    assert_eq!(vectors.0.into_keys().collect::<Vec<_>>(), Vec::<String>::new(), "read by no test");
}

/// The compiler asks for a line here when a message or refusal is added, and the list above for
/// its bytes.
#[test]
fn no_variant_is_without_frozen_bytes() {
    let kind = |message: &SessionMessage| match message {
        SessionMessage::ChannelHello { .. } => 0,
        SessionMessage::ChannelState { .. } => 1,
        SessionMessage::JobRequest(_) => 2,
        SessionMessage::Payment { .. } => 3,
        SessionMessage::JobCancel { .. } => 4,
        SessionMessage::JobStarted { .. } => 5,
        SessionMessage::JobRefused { .. } => 6,
        SessionMessage::JobChunk { .. } => 7,
        SessionMessage::JobFinished { .. } => 8,
        SessionMessage::PaymentRefused { .. } => 9,
    };
    let refusal = |refusal: &ProviderRefusal| match refusal {
        ProviderRefusal::Busy { .. } => 0,
        ProviderRefusal::UnknownModel => 1,
        ProviderRefusal::ContextExceeded { .. } => 2,
        ProviderRefusal::BadRequest { .. } => 3,
        ProviderRefusal::NoHeadroom { .. } => 4,
        ProviderRefusal::StaleOffer => 5,
        ProviderRefusal::Draining => 6,
        ProviderRefusal::EngineFailed => 7,
    };
    let mut kinds: Vec<_> = messages().iter().map(|(_, message)| kind(message)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, (0..10).collect::<Vec<_>>());
    let mut kinds: Vec<_> = refusals().iter().map(|(_, it)| refusal(it)).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, (0..8).collect::<Vec<_>>());
}

#[test]
fn a_flipped_bit_in_a_signed_offer_is_refused() {
    let bytes = Vectors::read().take("signed-offer");
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let outcome = SignedOffer::from_bytes(flipped).verify(offer().issued);
        assert!(outcome.is_err(), "bit {bit}");
    }
}
