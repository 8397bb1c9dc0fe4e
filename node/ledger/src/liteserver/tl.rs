//! TL, the form of everything on a liteserver's wire: little-endian words, byte strings padded to
//! four bytes, and a number in front that says which constructor follows.
//!
//! Owns: reading and writing TL's basic types.
//! Must not: panic on any bytes, or know a method.

use tycho_types::cell::HashBytes;
use tycho_types::models::{BlockId, ShardIdent};

/// The bytes are not what the schema says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not what TON's schema says at this place")]
pub struct Malformed;

const TRUE: u32 = 0x9972_75b5;
const FALSE: u32 = 0xbc79_9737;
/// The first length that takes four bytes to write.
const LONG: usize = 254;

/// Takes values off the front of bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (value, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*value)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.take().map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u32()? {
            TRUE => Ok(true),
            FALSE => Ok(false),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let [first] = self.take()?;
        let (length, header) = if usize::from(first) < LONG {
            (usize::from(first), 1)
        } else if usize::from(first) == LONG {
            let [a, b, c] = self.take()?;
            (usize::try_from(u32::from_le_bytes([a, b, c, 0])).map_err(|_| Malformed)?, 4)
        } else {
            return Err(Malformed);
        };
        let (value, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest.get(padding(header + length)..).ok_or(Malformed)?;
        Ok(value)
    }

    /// The number of elements that follow, each of at least `size` bytes: what would not fit into
    /// the rest is refused before anything is allocated for it.
    pub(crate) fn count(&mut self, size: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        if count.checked_mul(size).is_none_or(|bytes| bytes > self.0.len()) {
            return Err(Malformed);
        }
        Ok(count)
    }

    pub(crate) fn shard(&mut self) -> Result<(i32, u64), Malformed> {
        Ok((self.i32()?, self.u64()?))
    }

    pub(crate) fn block(&mut self) -> Result<BlockId, Malformed> {
        let (workchain, prefix) = self.shard()?;
        Ok(BlockId {
            shard: ShardIdent::new(workchain, prefix).ok_or(Malformed)?,
            seqno: self.u32()?,
            root_hash: HashBytes(self.take()?),
            file_hash: HashBytes(self.take()?),
        })
    }

    /// Nothing may follow.
    pub(crate) const fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Appends values to bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    /// Begins with the number of a constructor.
    pub(crate) fn of(constructor: u32) -> Self {
        Self::default().u32(constructor)
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn i32(self, value: i32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn flag(self, value: bool) -> Self {
        self.u32(if value { TRUE } else { FALSE })
    }

    /// A byte string. Lengths have 24 bits; what is longer is cut off, which no caller's is: the
    /// longest answer is bounded far below.
    pub(crate) fn bytes(mut self, value: &[u8]) -> Self {
        let value = value.get(..0x00ff_ffff).unwrap_or(value);
        let length = u32::try_from(value.len()).unwrap_or(0).to_le_bytes();
        let [first, second, third, _] = length;
        let header = if value.len() < LONG {
            self.0.push(first);
            1
        } else {
            self.0.extend_from_slice(&[0xfe, first, second, third]);
            4
        };
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len() + padding(header + value.len()), 0);
        self
    }

    pub(crate) fn block(self, id: &BlockId) -> Self {
        self.i32(id.shard.workchain())
            .u64(id.shard.prefix())
            .u32(id.seqno)
            .raw(&id.root_hash.0)
            .raw(&id.file_hash.0)
    }
}

const fn padding(length: usize) -> usize {
    (4 - length % 4) % 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn byte_strings_survive_and_stay_aligned(value in prop::collection::vec(any::<u8>(), 0..600)) {
            let written = Writer::default().bytes(&value).u32(7).0;
            prop_assert_eq!(written.len() % 4, 0);
            let mut reader = Reader(&written);
            prop_assert_eq!(reader.bytes(), Ok(value.as_slice()));
            prop_assert_eq!(reader.u32(), Ok(7));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn nothing_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Reader(&bytes).bytes();
            let _ = Reader(&bytes).block();
            let _ = Reader(&bytes).count(80);
            let _ = Reader(&bytes).flag();
        }
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused() {
        let bytes = Writer::default().u32(1_000_000).raw(&[0; 80]).0;
        assert_eq!(Reader(&bytes).count(80), Err(Malformed));
    }
}
