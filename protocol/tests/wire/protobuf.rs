//! A protobuf writer of a dozen lines, for messages that our own encoder would never make.
//!
//! Owns: tags and lengths, as <https://protobuf.dev/programming-guides/encoding/> has them.
//! Must not: share a line with the encoder under test.

/// A message that is being put together, field by field.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap());
        self
    }

    /// A whole number.
    pub(crate) fn number(self, field: u64, value: u64) -> Self {
        self.varint(field << 3).varint(value)
    }

    /// Bytes, text, or a message within.
    pub(crate) fn bytes(self, field: u64, bytes: &[u8]) -> Self {
        let mut message = self.varint(field << 3 | 2).varint(u64::try_from(bytes.len()).unwrap());
        message.0.extend_from_slice(bytes);
        message
    }

    /// A message within.
    pub(crate) fn message(self, field: u64, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    /// Four bytes, little-endian.
    pub(crate) fn float(self, field: u64, value: f32) -> Self {
        let mut message = self.varint(field << 3 | 5);
        message.0.extend_from_slice(&value.to_le_bytes());
        message
    }

    /// The encoded form.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}
