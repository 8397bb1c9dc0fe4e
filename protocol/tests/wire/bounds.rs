//! Every bound of a message, pushed one step too far: refused, with the reason's name.
//!
//! Owns: one case for each bound and the nearest legal neighbour.
//! Must not: go through our own encoder where that would refuse or repair the fault.

use cocoon_protocol::job::SpecError;
use cocoon_protocol::limits;
use cocoon_protocol::wire::{DecodeError, SessionMessage, decode_offer, decode_signed_offer};

use crate::protobuf::Message;

const ID: [u8; 32] = [7; 32];
const SIGNATURE: [u8; 64] = [8; 64];

fn refused(field: u64, body: &Message) -> DecodeError {
    let frame = Message::new().message(field, body).finish();
    SessionMessage::decode(&frame).unwrap_err()
}

fn accepted(field: u64, body: &Message) {
    SessionMessage::decode(&Message::new().message(field, body).finish()).unwrap();
}

/// A request by parts, each of which a test may replace.
#[derive(Clone)]
struct Request {
    job: Vec<u8>,
    model: Vec<u8>,
    prompt: Option<Message>,
    sampling: Option<Message>,
    stop: Vec<Vec<u8>>,
    max_completion: u64,
    salt: Vec<u8>,
}

impl Request {
    fn legal() -> Self {
        Self {
            job: ID.to_vec(),
            model: ID.to_vec(),
            prompt: Some(Message::new().bytes(2, b"Once")),
            sampling: Some(Message::new().float(2, 1.0)),
            stop: Vec::new(),
            max_completion: 1,
            salt: ID.to_vec(),
        }
    }

    fn encode(&self) -> Message {
        let mut message = Message::new().bytes(1, &self.job).bytes(2, &self.model);
        if let Some(prompt) = &self.prompt {
            message = message.message(4, prompt);
        }
        if let Some(sampling) = &self.sampling {
            message = message.message(5, sampling);
        }
        for stop in &self.stop {
            message = message.bytes(6, stop);
        }
        message.number(7, self.max_completion).bytes(8, &self.salt)
    }
}

fn request_refused(change: impl FnOnce(&mut Request)) -> DecodeError {
    let mut request = Request::legal();
    change(&mut request);
    refused(2, &request.encode())
}

fn request_accepted(change: impl FnOnce(&mut Request)) {
    let mut request = Request::legal();
    change(&mut request);
    accepted(2, &request.encode());
}

fn chat(turns: usize) -> Message {
    let turn = Message::new().number(1, 2).bytes(2, b"x");
    let chat = (0..turns).fold(Message::new(), |chat, _| chat.message(1, &turn));
    Message::new().message(1, &chat)
}

#[test]
fn the_legal_request_is_legal() {
    request_accepted(|_| {});
}

#[test]
fn ids_and_keys_have_their_exact_length() {
    for length in [0, 31, 33, 64] {
        let wrong = |field| DecodeError::WrongLength { field, length };
        assert_eq!(request_refused(|it| it.job = vec![1; length]), wrong("job"));
        assert_eq!(request_refused(|it| it.model = vec![1; length]), wrong("model"));
        assert_eq!(request_refused(|it| it.salt = vec![1; length]), wrong("salt"));
        let cancel = Message::new().bytes(1, &vec![1; length]);
        for body in [4, 17, 18, 19] {
            assert_eq!(refused(body, &cancel), wrong("job"), "body {body}");
        }
    }
}

#[test]
fn a_prompt_has_text_and_not_too_much_of_it() {
    let job = |error| DecodeError::Job(error);
    assert_eq!(request_refused(|it| it.prompt = None), DecodeError::Missing { field: "prompt" });
    let empty = request_refused(|it| it.prompt = Some(Message::new()));
    assert_eq!(empty, DecodeError::Missing { field: "prompt" });
    let no_text = request_refused(|it| it.prompt = Some(Message::new().bytes(2, b"")));
    assert_eq!(no_text, job(SpecError::EmptyPrompt));
    assert_eq!(request_refused(|it| it.prompt = Some(chat(0))), job(SpecError::EmptyPrompt));
    let text = |bytes| Some(Message::new().bytes(2, &vec![b'x'; bytes]));
    request_accepted(|it| it.prompt = text(limits::PROMPT_BYTES));
    let bytes = limits::PROMPT_BYTES + 1;
    let long = request_refused(|it| it.prompt = text(bytes));
    assert_eq!(long, job(SpecError::PromptTooLong { bytes }));
    request_accepted(|it| it.prompt = Some(chat(limits::PROMPT_TURNS)));
    let turns = limits::PROMPT_TURNS + 1;
    let many = request_refused(|it| it.prompt = Some(chat(turns)));
    assert_eq!(many, job(SpecError::TooManyTurns { turns }));
}

#[test]
fn a_turn_has_a_known_role_and_real_text() {
    let with_role = |role| {
        let turn = Message::new().number(1, role).bytes(2, b"x");
        Some(Message::new().message(1, &Message::new().message(1, &turn)))
    };
    for role in [0, 4, 999] {
        let unknown = request_refused(|it| it.prompt = with_role(role));
        assert_eq!(unknown, DecodeError::OutOfRange { field: "role" });
    }
    let not_text = request_refused(|it| it.prompt = Some(Message::new().bytes(2, b"\xff\xfe")));
    assert_eq!(not_text, DecodeError::Malformed);
}

#[test]
fn stop_strings_are_few_and_short() {
    let job = |error| DecodeError::Job(error);
    let stops = |count, bytes| vec![vec![b'x'; bytes]; count];
    request_accepted(|it| it.stop = stops(limits::STOP_STRINGS, limits::STOP_STRING_BYTES));
    let count = limits::STOP_STRINGS + 1;
    let many = request_refused(|it| it.stop = stops(count, 1));
    assert_eq!(many, job(SpecError::TooManyStops { count }));
    let long = request_refused(|it| it.stop = stops(1, limits::STOP_STRING_BYTES + 1));
    assert_eq!(long, job(SpecError::BadStop));
    assert_eq!(request_refused(|it| it.stop = stops(1, 0)), job(SpecError::BadStop));
}

#[test]
fn the_completion_has_a_limit() {
    let refused = DecodeError::Job(SpecError::BadMaxCompletion);
    let most = u64::from(limits::MAX_COMPLETION.get());
    request_accepted(|it| it.max_completion = most);
    assert_eq!(request_refused(|it| it.max_completion = 0), refused);
    assert_eq!(request_refused(|it| it.max_completion = most + 1), refused);
}

#[test]
fn sampling_is_finite_and_in_range() {
    let absent = request_refused(|it| it.sampling = None);
    assert_eq!(absent, DecodeError::Missing { field: "sampling" });
    let fields = [
        (1, "temperature", 0, 2),
        (2, "top_p", 0, 1),
        (4, "min_p", 0, 1),
        (5, "frequency_penalty", -2, 2),
        (6, "presence_penalty", -2, 2),
    ];
    for (number, field, min, max) in fields {
        let bad = DecodeError::Job(SpecError::BadSampling { field, min, max });
        let just_over = f32::from(max) + 0.001;
        let just_under = f32::from(min) - 0.001;
        let values = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, just_over, just_under];
        for value in values {
            let sampling = Some(Message::new().float(number, value));
            assert_eq!(request_refused(|it| it.sampling = sampling), bad, "{field} {value}");
        }
        for value in [f32::from(min), f32::from(max)] {
            request_accepted(|it| it.sampling = Some(Message::new().float(number, value)));
        }
    }
}

#[test]
fn a_chunk_is_bounded() {
    let chunk = |bytes| Message::new().bytes(1, &ID).bytes(2, &vec![b'x'; bytes]);
    accepted(19, &chunk(limits::CHUNK_BYTES));
    let (length, limit) = (limits::CHUNK_BYTES + 1, limits::CHUNK_BYTES);
    assert_eq!(refused(19, &chunk(length)), DecodeError::TooLong { field: "text", length, limit });
}

#[test]
fn a_receipt_is_bounded_and_signed() {
    let finished = |receipt: &Message| Message::new().bytes(1, &ID).message(2, receipt);
    let missing = Message::new().bytes(1, &ID);
    assert_eq!(refused(20, &missing), DecodeError::Missing { field: "receipt" });
    let receipt = |bytes| Message::new().bytes(1, &vec![1; bytes]).bytes(2, &SIGNATURE);
    accepted(20, &finished(&receipt(1_024)));
    let too_long = DecodeError::TooLong { field: "receipt", length: 1_025, limit: 1_024 };
    assert_eq!(refused(20, &finished(&receipt(1_025))), too_long);
    let unsigned = Message::new().bytes(1, b"receipt").bytes(2, &[1; 63]);
    let wrong = DecodeError::WrongLength { field: "signature", length: 63 };
    assert_eq!(refused(20, &finished(&unsigned)), wrong);
}

#[test]
fn words_of_a_peer_are_short_and_cannot_disturb_a_terminal() {
    type Body = fn(&[u8]) -> Message;
    let cases: [(u64, &str, Body); 2] = [
        (21, "reason", |text| Message::new().bytes(2, text)),
        (18, "bad_request", |text| Message::new().bytes(1, &ID).bytes(5, text)),
    ];
    for (body, field, with) in cases {
        accepted(body, &with(&vec![b'x'; limits::PEER_TEXT_BYTES]));
        let (length, limit) = (limits::PEER_TEXT_BYTES + 1, limits::PEER_TEXT_BYTES);
        let long = refused(body, &with(&vec![b'x'; length]));
        assert_eq!(long, DecodeError::TooLong { field, length, limit });
        for text in ["\u{1b}[31mred", "two\nlines", "bell\u{7}", "\u{9b}31m", "nul\0"] {
            let refused = refused(body, &with(text.as_bytes()));
            assert_eq!(refused, DecodeError::ControlCharacter { field });
        }
    }
}

#[test]
fn a_refusal_has_a_known_reason() {
    let none = Message::new().bytes(1, &ID);
    assert_eq!(refused(18, &none), DecodeError::Missing { field: "reason" });
    for plain in [0, 5, 1_000] {
        let unknown = refused(18, &none.clone().number(6, plain));
        assert_eq!(unknown, DecodeError::OutOfRange { field: "reason" });
    }
}

#[test]
fn a_vault_has_a_legal_address() {
    // sint32: zigzag of 128 and of −129.
    for workchain in [256, 257] {
        let hello = Message::new().number(1, workchain).bytes(2, &ID);
        assert_eq!(refused(1, &hello), DecodeError::OutOfRange { field: "vault_account" });
    }
    let wrong = DecodeError::WrongLength { field: "vault_account", length: 33 };
    assert_eq!(refused(1, &Message::new().bytes(2, &[1; 33])), wrong);
    let unproved = DecodeError::WrongLength { field: "proof", length: 0 };
    assert_eq!(refused(1, &Message::new().bytes(2, &ID)), unproved);
    accepted(1, &Message::new().bytes(2, &ID).bytes(3, &SIGNATURE));
}

#[test]
fn a_voucher_is_whole() {
    let voucher = Message::new().bytes(2, &ID).bytes(3, &ID).bytes(6, &ID);
    let signed = Message::new().message(1, &voucher).bytes(2, &SIGNATURE);
    accepted(3, &Message::new().message(1, &signed));
    accepted(3, &Message::new().message(1, &signed).bytes(2, &ID));
    let missing = DecodeError::Missing { field: "voucher" };
    assert_eq!(refused(3, &Message::new()), missing);
    let only_signature = Message::new().bytes(2, &SIGNATURE);
    assert_eq!(refused(3, &Message::new().message(1, &only_signature)), missing);
    let short = Message::new().message(1, &voucher).bytes(2, &SIGNATURE[..63]);
    let wrong = DecodeError::WrongLength { field: "signature", length: 63 };
    assert_eq!(refused(3, &Message::new().message(1, &short)), wrong);
    // In a provider's view of the channel too.
    assert_eq!(refused(16, &Message::new().message(5, &short)), wrong);
    for (field, name) in [(2, "vault_account"), (3, "provider"), (6, "receipts_root")] {
        // The last of a repeated field counts.
        let long = voucher.clone().bytes(field, &[1; 33]);
        let signed = Message::new().message(1, &long).bytes(2, &SIGNATURE);
        let wrong = DecodeError::WrongLength { field: name, length: 33 };
        assert_eq!(refused(3, &Message::new().message(1, &signed)), wrong);
    }
    let half_an_id = Message::new().message(1, &signed).bytes(2, &[1; 16]);
    assert_eq!(refused(3, &half_an_id), DecodeError::WrongLength { field: "job", length: 16 });
}

fn model(name: &[u8], quantisation: &[u8]) -> Message {
    Message::new().bytes(1, &ID).bytes(2, name).bytes(3, quantisation)
}

fn offer(models: &[Message], tier: u64, load: u64, region: &[u8]) -> Vec<u8> {
    let offer = Message::new().bytes(1, &ID);
    let offer = models.iter().fold(offer, |offer, model| offer.message(6, model));
    offer.number(7, tier).bytes(10, &ID).number(11, load).bytes(12, region).finish()
}

#[test]
fn an_offer_keeps_its_bounds() {
    let legal = model(b"m", b"Q4_1");
    decode_offer(&offer(std::slice::from_ref(&legal), 1, 1, b"eu")).unwrap();
    let refused = |bytes: &[u8]| decode_offer(bytes).unwrap_err();
    assert_eq!(refused(&offer(&[], 1, 1, b"")), DecodeError::Missing { field: "models" });
    let many = vec![legal.clone(); limits::OFFER_MODELS + 1];
    let (length, limit) = (limits::OFFER_MODELS + 1, limits::OFFER_MODELS);
    let too_long = |field, length, limit| DecodeError::TooLong { field, length, limit };
    assert_eq!(refused(&offer(&many, 1, 1, b"")), too_long("models", length, limit));
    for tier in [0, 4] {
        let unknown = refused(&offer(std::slice::from_ref(&legal), tier, 1, b""));
        assert_eq!(unknown, DecodeError::OutOfRange { field: "tier" });
    }
    for load in [0, 5] {
        let unknown = refused(&offer(std::slice::from_ref(&legal), 1, load, b""));
        assert_eq!(unknown, DecodeError::OutOfRange { field: "load" });
    }
    let region = refused(&offer(std::slice::from_ref(&legal), 1, 1, &[b'x'; 17]));
    assert_eq!(region, too_long("region", 17, 16));
    let engine = [
        offer(std::slice::from_ref(&legal), 1, 1, b""),
        Message::new().bytes(13, &[b'x'; 65]).finish(),
    ];
    assert_eq!(refused(&engine.concat()), too_long("engine", 65, 64));
    let name = vec![b'x'; limits::MODEL_NAME_BYTES + 1];
    let (length, limit) = (limits::MODEL_NAME_BYTES + 1, limits::MODEL_NAME_BYTES);
    let named = refused(&offer(&[model(&name, b"")], 1, 1, b""));
    assert_eq!(named, too_long("name", length, limit));
    let quantised = refused(&offer(&[model(b"m", &[b'x'; 17])], 1, 1, b""));
    assert_eq!(quantised, too_long("quantisation", 17, 16));
    let coloured = refused(&offer(&[model(b"\x1b[31m", b"")], 1, 1, b""));
    assert_eq!(coloured, DecodeError::ControlCharacter { field: "name" });
}

#[test]
fn a_signed_offer_has_a_whole_signature() {
    let signed = Message::new().bytes(1, b"offer").bytes(2, &[1; 65]).finish();
    let wrong = DecodeError::WrongLength { field: "signature", length: 65 };
    assert_eq!(decode_signed_offer(&signed), Err(wrong));
}
