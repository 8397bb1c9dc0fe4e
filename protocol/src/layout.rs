//! Fixed big-endian layouts of records that are stored or signed: their writer and strict reader.
//!
//! Owns: lengths, order and the one error of a record that cannot be read.
//! Must not: know what a record means. No field is optional, none is skipped, no byte may follow:
//! one value has exactly one encoding, so that a hash or a signature over it means one thing.

use crate::identity::TonAddress;

/// Why bytes are not the record that they should be. A stored record that fails was written by
/// another version or damaged; a received one is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The first four bytes name another kind of record or a version that is not known here.
    #[error("the record is of another kind or version")]
    WrongKind,
    /// Too few bytes, or bytes after the end.
    #[error("the record has the wrong length")]
    WrongLength,
    /// A field holds a value that no writer puts there.
    #[error("the record's field `{0}` has an impossible value")]
    BadField(&'static str),
}

/// Bytes that most records have at most; room for them is made at once.
const MOST: usize = 128;

/// Builds a record: four bytes of kind and version, then the fields in order.
#[derive(Debug)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// A record of this kind, without fields. Bytes that are hashed and never read have none.
    pub(crate) fn new<const N: usize>(kind: [u8; N]) -> Self {
        let mut bytes = Vec::with_capacity(MOST);
        bytes.extend_from_slice(&kind);
        Self(bytes)
    }

    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Bytes whose number the reader knows: no length is written.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Workchain and account hash.
    pub(crate) fn address(self, address: TonAddress) -> Self {
        self.bytes(&address.workchain.to_be_bytes()).bytes(&address.hash)
    }

    /// The record's bytes.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads what a [`Writer`] wrote, and nothing else.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Opens a record that must be of this kind and version.
    pub(crate) fn open(bytes: &'a [u8], kind: [u8; 4]) -> Result<Self, RecordError> {
        match bytes.strip_prefix(&kind) {
            Some(fields) => Ok(Self(fields)),
            None => Err(RecordError::WrongKind),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(RecordError::WrongLength)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, RecordError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A byte that is 0 or 1.
    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, RecordError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RecordError::BadField(field)),
        }
    }

    pub(crate) fn address(&mut self) -> Result<TonAddress, RecordError> {
        let [workchain] = self.array::<1>()?;
        Ok(TonAddress { workchain: i8::from_be_bytes([workchain]), hash: self.array()? })
    }

    /// All that follows, for a last field with a strict reader of its own.
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Ends the record: nothing may follow.
    pub(crate) fn finish(self) -> Result<(), RecordError> {
        if self.0.is_empty() { Ok(()) } else { Err(RecordError::WrongLength) }
    }
}
