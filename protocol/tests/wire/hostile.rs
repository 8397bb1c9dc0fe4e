//! Bytes that no honest peer sends: they are refused, and nothing panics.
//!
//! Owns: random, cut, flipped and oversized input. Must not: name single bounds; `bounds` does.

use cocoon_protocol::limits;
use cocoon_protocol::wire::{
    DecodeError, SessionMessage, decode_offer, decode_signed_offer, encode_signed_offer,
};
use proptest::prelude::*;

use crate::arbitrary::message;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    /// Whatever random bytes mean, they mean it within the bounds: what is read can be written and
    /// read again.
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(message) = SessionMessage::decode(&bytes) {
            prop_assert_eq!(SessionMessage::decode(&message.encode()), Ok(message));
        }
        let _refused_or_not = decode_offer(&bytes);
        if let Ok((offer, signature)) = decode_signed_offer(&bytes) {
            let again = encode_signed_offer(&offer, &signature);
            prop_assert_eq!(decode_signed_offer(&again), Ok((offer, signature)));
        }
    }

    /// A frame carries its length outside, so a cut one is a stream that broke. Protobuf cannot
    /// tell every cut, since a message may end after any of its fields; what is left then either
    /// lacks something or holds other values than were sent.
    #[test]
    fn a_cut_message_is_never_the_same(message in message(), cut in any::<prop::sample::Index>()) {
        let bytes = message.encode();
        let cut = cut.index(bytes.len());
        prop_assert_ne!(SessionMessage::decode(&bytes[..cut]), Ok(message));
    }

    #[test]
    fn a_flipped_bit_never_panics_and_stays_within_the_bounds(
        message in message(), at in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let mut bytes = message.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = SessionMessage::decode(&bytes) {
            prop_assert_eq!(SessionMessage::decode(&other.encode()), Ok(other));
        }
    }

    /// Fields that we do not know are a newer peer's: they are skipped.
    #[test]
    fn unknown_fields_are_skipped(message in message(), field in 100u64..1_000, value: u64) {
        let mut bytes = message.encode();
        bytes.extend(crate::protobuf::Message::new().number(field, value).finish());
        prop_assert_eq!(SessionMessage::decode(&bytes), Ok(message));
    }
}

#[test]
fn a_frame_larger_than_the_limit_is_refused_unread() {
    let (length, limit) = (limits::FRAME_BYTES + 1, limits::FRAME_BYTES);
    let refused = Err(DecodeError::TooLarge { length, limit });
    assert_eq!(SessionMessage::decode(&vec![0; length]), refused);
    // One byte fewer is looked at, and found to be nothing.
    assert_eq!(SessionMessage::decode(&vec![0; limit]), Err(DecodeError::Malformed));
    let (length, limit) = (limits::OFFER_BYTES + 1, limits::OFFER_BYTES);
    let refused = Err(DecodeError::TooLarge { length, limit });
    assert_eq!(decode_signed_offer(&vec![0; length]), refused);
}

#[test]
fn an_empty_frame_has_no_body() {
    assert_eq!(SessionMessage::decode(&[]), Err(DecodeError::Missing { field: "body" }));
    let missing = DecodeError::WrongLength { field: "signature", length: 0 };
    assert_eq!(decode_signed_offer(&[]), Err(missing));
    assert_eq!(decode_offer(&[]), Err(DecodeError::Missing { field: "models" }));
}

/// Messages nested a hundred thousand deep would end a recursive reader's stack.
#[test]
fn deep_nesting_is_refused_without_a_stack_overflow() {
    let mut bytes = Vec::new();
    for _ in 0..2_000 {
        bytes = crate::protobuf::Message::new().bytes(2, &bytes).finish();
    }
    assert!(SessionMessage::decode(&bytes).is_err());
    // Groups, an obsolete part of the format, nest without lengths.
    assert_eq!(SessionMessage::decode(&vec![0x0b; 100_000]), Err(DecodeError::Malformed));
}
