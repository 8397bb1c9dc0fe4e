//! Any legal message, and the proof that it survives the wire.
//!
//! Owns: a generator for every variant, to the bounds. Must not: generate what must be refused.

use cocoon_protocol::channel::{JobTotal, SignedVoucher, Voucher};
use cocoon_protocol::identity::{JobId, ModelHash, NodeId, TonAddress};
use cocoon_protocol::job::{JobSpec, Prompt, ProviderRefusal, Role, Sampling, Turn};
use cocoon_protocol::limits;
use cocoon_protocol::receipt::SignedReceipt;
use cocoon_protocol::units::{Millis, NanoTon, Tokens};
use cocoon_protocol::wire::{JobRequest, SessionMessage};
use proptest::prelude::*;

fn job() -> impl Strategy<Value = JobId> {
    any::<[u8; 32]>().prop_map(JobId::from_bytes)
}

fn nano() -> impl Strategy<Value = NanoTon> {
    any::<u64>().prop_map(NanoTon::from_nano)
}

fn tokens() -> impl Strategy<Value = Tokens> {
    any::<u32>().prop_map(Tokens::new)
}

fn vault() -> impl Strategy<Value = TonAddress> {
    (any::<i8>(), any::<[u8; 32]>()).prop_map(|(workchain, hash)| TonAddress { workchain, hash })
}

fn signature() -> impl Strategy<Value = [u8; 64]> {
    (any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(first, second)| {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&first);
        signature[32..].copy_from_slice(&second);
        signature
    })
}

fn voucher() -> impl Strategy<Value = SignedVoucher> {
    let parts = (vault(), any::<[u8; 32]>(), any::<u32>(), nano(), any::<[u8; 32]>());
    (parts, signature()).prop_map(|((vault, provider, epoch, cumulative, root), signature)| {
        let provider = NodeId::from_bytes(provider);
        let voucher = Voucher { vault, provider, epoch, cumulative, receipts_root: root };
        SignedVoucher { voucher, signature }
    })
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::System), Just(Role::User), Just(Role::Assistant)]
}

fn prompt() -> impl Strategy<Value = Prompt> {
    let turn = (role(), ".{0,40}").prop_map(|(role, content)| Turn { role, content });
    prop_oneof![
        prop::collection::vec(turn, 1..6).prop_map(Prompt::Chat),
        "(?s).{1,200}".prop_map(Prompt::Text),
    ]
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let ranges = (0f32..=2.0, 0f32..=1.0, any::<u32>(), 0f32..=1.0, -2f32..=2.0, -2f32..=2.0);
    (ranges, any::<u64>()).prop_map(
        |((temperature, top_p, top_k, min_p, frequency_penalty, presence_penalty), seed)| {
            Sampling { temperature, top_p, top_k, min_p, frequency_penalty, presence_penalty, seed }
        },
    )
}

fn request() -> impl Strategy<Value = JobRequest> {
    let stop = prop::collection::vec("(?s).{1,20}", 0..=limits::STOP_STRINGS);
    let spec = (any::<[u8; 32]>(), prompt(), sampling(), stop, 1..=limits::MAX_COMPLETION.get());
    let spec = spec.prop_map(|(model, prompt, sampling, stop, max_completion)| JobSpec {
        model: ModelHash::from_bytes(model),
        prompt,
        sampling,
        stop,
        max_completion: Tokens::new(max_completion),
    });
    (job(), any::<u64>(), spec, any::<[u8; 32]>()).prop_map(|(job, offer_sequence, spec, salt)| {
        JobRequest { job, offer_sequence, spec, salt }
    })
}

/// Text that may reach a terminal.
fn words() -> impl Strategy<Value = String> {
    "[a-zA-Zäöü€😀 .:]{0,100}"
}

fn refusal() -> impl Strategy<Value = ProviderRefusal> {
    prop_oneof![
        any::<u64>().prop_map(|millis| ProviderRefusal::Busy { retry_after: Millis::new(millis) }),
        Just(ProviderRefusal::UnknownModel),
        (tokens(), tokens())
            .prop_map(|(prompt, context)| ProviderRefusal::ContextExceeded { prompt, context }),
        words().prop_map(|reason| ProviderRefusal::BadRequest { reason }),
        (nano(), nano())
            .prop_map(|(headroom, needed)| ProviderRefusal::NoHeadroom { headroom, needed }),
        Just(ProviderRefusal::StaleOffer),
        Just(ProviderRefusal::Draining),
        Just(ProviderRefusal::EngineFailed),
    ]
}

fn from_consumer() -> impl Strategy<Value = SessionMessage> {
    let total = prop::option::of((job(), nano()).prop_map(|(job, total)| JobTotal { job, total }));
    prop_oneof![
        (vault(), signature())
            .prop_map(|(vault, proof)| SessionMessage::ChannelHello { vault, proof }),
        request().prop_map(SessionMessage::JobRequest),
        (voucher(), total).prop_map(|(voucher, total)| SessionMessage::Payment { voucher, total }),
        job().prop_map(|job| SessionMessage::JobCancel { job }),
    ]
}

fn from_provider() -> impl Strategy<Value = SessionMessage> {
    let allocation = prop::option::of((any::<u32>(), nano()));
    let receipt = (prop::collection::vec(any::<u8>(), 0..=1_024), signature());
    let receipt = receipt.prop_map(|(bytes, signature)| SignedReceipt { bytes, signature });
    prop_oneof![
        (allocation, nano(), prop::option::of(voucher()), nano()).prop_map(
            |(allocation, settled, latest, owed)| SessionMessage::ChannelState {
                allocation,
                settled,
                latest,
                owed
            }
        ),
        (job(), tokens()).prop_map(|(job, prompt)| SessionMessage::JobStarted { job, prompt }),
        (job(), refusal()).prop_map(|(job, refusal)| SessionMessage::JobRefused { job, refusal }),
        (job(), "(?s).{0,200}", tokens())
            .prop_map(|(job, text, completion)| SessionMessage::JobChunk { job, text, completion }),
        (job(), receipt).prop_map(|(job, receipt)| SessionMessage::JobFinished { job, receipt }),
        (prop::option::of(job()), words())
            .prop_map(|(job, reason)| SessionMessage::PaymentRefused { job, reason }),
    ]
}

/// Any legal message.
pub(crate) fn message() -> impl Strategy<Value = SessionMessage> {
    prop_oneof![from_consumer(), from_provider()]
}

proptest! {
    /// Debug output may reach a log.
    #[test]
    fn no_text_shows_in_debug_output(
        text in "[α-ω]{4,20}", role in role(), mut request in request(), job in job(),
    ) {
        let reason = text.clone();
        request.spec.stop = vec![text.clone()];
        request.spec.prompt = Prompt::Text(text.clone());
        let with_text = SessionMessage::JobRequest(request.clone());
        request.spec.prompt = Prompt::Chat(vec![Turn { role, content: text.clone() }]);
        let messages = [
            with_text,
            SessionMessage::JobRequest(request),
            SessionMessage::JobChunk { job, text: text.clone(), completion: Tokens::ZERO },
            SessionMessage::PaymentRefused { job: None, reason: reason.clone() },
            SessionMessage::JobRefused { job, refusal: ProviderRefusal::BadRequest { reason } },
        ];
        for message in messages {
            let shown = format!("{message:?} {message:#?}");
            prop_assert!(!shown.contains(&text), "{}", shown);
        }
    }

    #[test]
    fn every_message_survives_the_wire(message in message()) {
        let bytes = message.encode();
        prop_assert!(bytes.len() <= limits::FRAME_BYTES);
        prop_assert_eq!(SessionMessage::decode(&bytes), Ok(message));
    }
}
