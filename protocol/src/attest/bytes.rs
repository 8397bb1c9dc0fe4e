//! A strict reader for the length-prefixed records of attestation.
//!
//! Owns: taking exact pieces off the front of untrusted bytes.
//! Must not: allocate by a peer's word; every length is held against what is really there.

/// The bytes are not a well-formed record: truncated, too long, with trailing bytes, of an unknown
/// version or kind. The peer runs another protocol or plays foul; there is nothing to retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the attestation record is malformed")]
pub struct Malformed;

/// What is left to read.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// `u32be(length) ‖ bytes`, of at most `limit` bytes.
    pub(super) fn length_prefixed(&mut self, limit: usize) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| Malformed)?;
        if length > limit {
            return Err(Malformed);
        }
        self.take(length)
    }

    /// Nothing may be left.
    pub(super) const fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}
