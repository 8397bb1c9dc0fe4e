//! Golden bytes, real shapes, and hostile headers.

use proptest::prelude::*;

use super::*;

/// A header in the making.
#[derive(Default)]
struct Header {
    entries: u64,
    bytes: Vec<u8>,
}

impl Header {
    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries += 1;
        self.bytes.extend(u64::try_from(key.len()).unwrap().to_le_bytes());
        self.bytes.extend(key.as_bytes());
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(value);
        self
    }

    fn text(self, key: &str, value: &str) -> Self {
        let mut bytes = u64::try_from(value.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend(value.as_bytes());
        self.entry(key, STRING, &bytes)
    }

    fn array(self, key: &str, kind: u32, count: u64, elements: &[u8]) -> Self {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        bytes.extend(elements);
        self.entry(key, ARRAY, &bytes)
    }

    fn finish(self) -> Vec<u8> {
        let mut header = b"GGUF\x03\0\0\0".to_vec();
        header.extend(7_u64.to_le_bytes());
        header.extend(self.entries.to_le_bytes());
        header.extend(self.bytes);
        header
    }
}

fn model() -> Vec<u8> {
    Header::default()
        .entry("llama.context_length", 4, &8_192_u32.to_le_bytes())
        .text("general.architecture", "llama")
        .entry("clip.context_length", 4, &77_u32.to_le_bytes())
        .text("general.name", "A model")
        .array("tokenizer.ggml.tokens", STRING, 2, b"\x01\0\0\0\0\0\0\0a\x02\0\0\0\0\0\0\0bc")
        .array("tokenizer.ggml.scores", 6, 3, &[0; 12])
        .entry("tokenizer.ggml.add_bos_token", 7, &[1])
        .entry("general.file_type", 4, &15_u32.to_le_bytes())
        .text("tokenizer.chat_template", "{{ x }}")
        .text("general.license", "apache-2.0")
        .finish()
}

#[test]
fn a_header_is_read() {
    assert_eq!(
        Metadata::read(model().as_slice()).unwrap(),
        Metadata {
            name: Some("A model".into()),
            architecture: Some("llama".into()),
            context: Some(Tokens::new(8_192)),
            quantisation: Some("Q4_K_M".into()),
            chat_template: Some("{{ x }}".into()),
            licence: Some("apache-2.0".into()),
            tensors: 7,
        }
    );
}

#[test]
fn what_is_no_gguf_is_refused() {
    assert!(matches!(Metadata::read(&b""[..]), Err(GgufError::Truncated)));
    assert!(matches!(Metadata::read(&b"ELF file"[..]), Err(GgufError::NotGguf)));
    let version = [&b"GGUF"[..], &1_u32.to_le_bytes()].concat();
    assert!(matches!(Metadata::read(version.as_slice()), Err(GgufError::Version { version: 1 })));
}

#[test]
fn every_bound_is_refused_without_taking_memory() {
    let refused = |header: Header| match Metadata::read(header.finish().as_slice()) {
        Err(GgufError::Bound { what }) => what,
        other => panic!("expected a bound, got {other:?}"),
    };
    let huge = u64::MAX.to_le_bytes();
    assert_eq!(
        refused(Header::default().entry("general.name", STRING, &huge)),
        "length of a string"
    );
    assert_eq!(refused(Header { entries: 1 << 40, bytes: vec![] }), "number of entries");
    assert_eq!(refused(Header::default().array("a", 4, 1 << 60, &[])), "length of an array");
    assert_eq!(refused(Header::default().array("a", ARRAY, 1, &[])), "nesting of arrays");
    assert_eq!(refused(Header::default().entry("a", 99, &[])), "type of a value");
    let skipped = Header::default().entry("other", STRING, &huge).finish();
    assert!(matches!(Metadata::read(skipped.as_slice()), Err(GgufError::Truncated)));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Metadata::read(bytes.as_slice());
        let framed = [b"GGUF\x03\0\0\0", bytes.as_slice()].concat();
        let _ = Metadata::read(framed.as_slice());
    }

    #[test]
    fn a_truncated_header_is_an_error(keep in 0_usize..1000) {
        let bytes = model();
        prop_assume!(keep < bytes.len());
        prop_assert!(Metadata::read(&bytes[..keep]).is_err());
    }

    #[test]
    fn flipped_bits_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6)) {
        let mut bytes = model();
        for (index, bit) in flips {
            let at = index.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        let _ = Metadata::read(bytes.as_slice());
    }
}
