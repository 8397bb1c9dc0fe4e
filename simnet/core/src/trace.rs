//! The trace of a run: one record of 32 bytes for everything that happens, hashed as it comes.
//!
//! Owns: the format of records, their hash, the last few of them, and reading them back.
//! Must not: decide what happens, or open files; the caller passes a writer.
//!
//! # Format
//! A trace file is the magic `SIMNETT1` and then records, all integers little-endian:
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0–7 | `at` | virtual nanoseconds since the start |
//! | 8 | `kind` | see [`Kind`] |
//! | 9 | reserved | zero |
//! | 10–11 | `label` | number of a protocol, or a mark's code |
//! | 12–15 | `node` | to whom it happens; 2^32 − 1 for nobody in particular |
//! | 16–19 | `peer` | from whom, likewise |
//! | 20–23 | `size` | bytes |
//! | 24–31 | `digest` | of the content that was delivered or marked; a timer's ordinal |
//!
//! A record of kind [`Kind::Label`] is followed by `size` bytes, the name of the protocol that has
//! the number `label` from there on. The hash of a run is BLAKE3 over exactly these bytes without the
//! magic, so a file that is whole hashes to what the run reported. A delivery's digest covers every
//! byte delivered: two runs with the same hash have moved the same bytes at the same moments.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use crate::node::NodeIndex;

const MAGIC: &[u8; 8] = b"SIMNETT1";
const RECORD: usize = 32;
const NOBODY: u32 = u32::MAX;
/// Records are hashed and written in batches of about this many bytes: BLAKE3 is fastest then.
const BATCH: usize = 64 * 1024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A protocol got its number. Not an event.
    Label = 0,
    /// Bytes reached a node.
    Delivery = 1,
    /// A timer fired; the node is that of the task which it woke.
    Timer = 2,
    /// A handshake's first packet reached a node.
    Dialled = 3,
    /// A dial of the node succeeded.
    Connected = 4,
    /// A dial of the node failed.
    DialFailed = 5,
    /// The node gave a connection up.
    Lost = 6,
    /// The node crashed.
    Crash = 7,
    /// The node is back.
    Restart = 8,
    /// The network fell apart.
    Partition = 9,
    /// It is whole again.
    Heal = 10,
    /// Something that the owner of the run marked.
    Mark = 11,
    /// A part of the owner's script ran.
    Script = 12,
    /// Links became worse or better.
    Fault = 13,
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::Label,
        Self::Delivery,
        Self::Timer,
        Self::Dialled,
        Self::Connected,
        Self::DialFailed,
        Self::Lost,
        Self::Crash,
        Self::Restart,
        Self::Partition,
        Self::Heal,
        Self::Mark,
        Self::Script,
        Self::Fault,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    const fn verb(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Delivery => "delivery",
            Self::Timer => "timer",
            Self::Dialled => "dialled",
            Self::Connected => "connected",
            Self::DialFailed => "dial failed",
            Self::Lost => "connection lost",
            Self::Crash => "crash",
            Self::Restart => "restart",
            Self::Partition => "partition",
            Self::Heal => "heal",
            Self::Mark => "mark",
            Self::Script => "script",
            Self::Fault => "links change",
        }
    }
}

/// One event of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub at: Duration,
    /// What.
    pub kind: Kind,
    /// Number of the protocol, or the mark's code.
    pub label: u16,
    /// To whom.
    pub node: Option<NodeIndex>,
    /// From whom.
    pub peer: Option<NodeIndex>,
    /// Bytes.
    pub size: u32,
    /// Of the content.
    pub digest: u64,
}

impl Record {
    pub(crate) fn new(at: u64, kind: Kind) -> Self {
        let at = Duration::from_nanos(at);
        Self { at, kind, label: 0, node: None, peer: None, size: 0, digest: 0 }
    }

    pub(crate) const fn node(mut self, node: NodeIndex) -> Self {
        self.node = Some(node);
        self
    }

    pub(crate) const fn peer(mut self, peer: NodeIndex) -> Self {
        self.peer = Some(peer);
        self
    }

    fn encode(&self) -> [u8; RECORD] {
        let number = |node: Option<NodeIndex>| node.map_or(NOBODY, |node| node.0).to_le_bytes();
        let nanos = u64::try_from(self.at.as_nanos()).unwrap_or(u64::MAX);
        let mut bytes = [0; RECORD];
        bytes[..8].copy_from_slice(&nanos.to_le_bytes());
        bytes[8] = self.kind as u8;
        bytes[10..12].copy_from_slice(&self.label.to_le_bytes());
        bytes[12..16].copy_from_slice(&number(self.node));
        bytes[16..20].copy_from_slice(&number(self.peer));
        bytes[20..24].copy_from_slice(&self.size.to_le_bytes());
        bytes[24..].copy_from_slice(&self.digest.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; RECORD]) -> Option<Self> {
        let word = |from: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[from..from + 4]);
            u32::from_le_bytes(word)
        };
        let long = |from: usize| u64::from(word(from)) | (u64::from(word(from + 4)) << 32);
        let node = |from: usize| Some(word(from)).filter(|it| *it != NOBODY).map(NodeIndex);
        Some(Self {
            at: Duration::from_nanos(long(0)),
            kind: Kind::from_number(bytes[8])?,
            label: u16::from_le_bytes([bytes[10], bytes[11]]),
            node: node(12),
            peer: node(16),
            size: word(20),
            digest: long(24),
        })
    }
}

/// A record with the name of its protocol, as people read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The record.
    pub record: Record,
    /// The name behind `record.label`; empty where there is none.
    pub protocol: String,
}

impl fmt::Display for Event {
    /// As `12.500000s delivery at node 17 from node 3, 512 B of /ipfs/kad/1.0.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { at, kind, label, node, peer, size, digest } = self.record;
        write!(f, "{}.{:06}s {}", at.as_secs(), at.subsec_micros(), kind.verb())?;
        if kind == Kind::Mark {
            write!(f, " {label}")?;
        }
        if let Some(node) = node {
            write!(f, " at {node}")?;
        }
        if let Some(peer) = peer {
            write!(f, " from {peer}")?;
        }
        if kind == Kind::Delivery {
            write!(f, ", {size} B of {}", self.protocol)?;
        } else if digest != 0 {
            write!(f, " ({digest:016x})")?;
        }
        Ok(())
    }
}

/// The trace as it is made.
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    batch: Vec<u8>,
    recent: VecDeque<Record>,
    keep: usize,
    events: u64,
    writer: Option<Box<dyn Write>>,
    failure: Option<io::Error>,
}

impl Trace {
    pub(crate) fn new(keep: usize) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            batch: Vec::with_capacity(BATCH.saturating_add(RECORD)),
            recent: VecDeque::with_capacity(keep),
            keep,
            events: 0,
            writer: None,
            failure: None,
        }
    }

    pub(crate) fn write_to(&mut self, mut writer: Box<dyn Write>) -> io::Result<()> {
        writer.write_all(MAGIC)?;
        self.writer = Some(writer);
        Ok(())
    }

    pub(crate) fn record(&mut self, record: Record) {
        self.events = self.events.wrapping_add(1);
        self.batch.extend_from_slice(&record.encode());
        if self.batch.len() >= BATCH {
            self.drain();
        }
        if self.keep > 0 {
            if self.recent.len() >= self.keep {
                self.recent.pop_front();
            }
            self.recent.push_back(record);
        }
    }

    pub(crate) fn label(&mut self, at: u64, label: u16, name: &str) {
        let size = u32::try_from(name.len()).unwrap_or(0);
        let record = Record { label, size, ..Record::new(at, Kind::Label) };
        self.batch.extend_from_slice(&record.encode());
        self.batch.extend_from_slice(name.as_bytes());
    }

    fn drain(&mut self) {
        self.hasher.update(&self.batch);
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.write_all(&self.batch)
        {
            // The run goes on: its hash does not depend on the file. The owner hears at the end.
            self.failure.get_or_insert(error);
            self.writer = None;
        }
        self.batch.clear();
    }

    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.drain();
        if let Some(mut writer) = self.writer.take() {
            writer.flush()?;
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.batch);
        *hasher.finalize().as_bytes()
    }

    pub(crate) const fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn recent(&self) -> impl Iterator<Item = &Record> {
        self.recent.iter()
    }
}

/// A digest of bytes for comparing runs: fast, and not a cryptographic one. Chain several pieces by
/// passing the digest so far.
#[must_use]
pub fn digest(so_far: u64, bytes: &[u8]) -> u64 {
    // A multiplication by an odd constant (of splitmix64) after each word, and a fold of the upper
    // half into the lower one, which the next multiplication carries up again.
    const FACTOR: u64 = 0xbf58_476d_1ce4_e5b9;
    let mix = |state: u64, word: u64| {
        let mixed = (state ^ word).wrapping_mul(FACTOR);
        mixed ^ (mixed >> 29)
    };
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let mut state = mix(so_far, length);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = mix(state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    mix(state, u64::from_le_bytes(last))
}

/// Reads a trace file back: [`Event`]s in the order of the run.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    labels: BTreeMap<u16, String>,
    hasher: blake3::Hasher,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("the trace cannot be read")]
    Io(#[source] io::Error),
    /// It is something else, or of another version.
    #[error("this is no trace of this version: it does not start with SIMNETT1")]
    NotATrace,
    /// It ends in the middle of a record, as that of a run that was killed may.
    #[error("the trace ends in the middle of a record; everything before it is whole")]
    Truncated,
    /// A record has a kind that does not exist.
    #[error("the trace has a record of unknown kind {0}; a newer version made it")]
    UnknownKind(u8),
}

impl<R: Read> Reader<R> {
    /// Starts reading.
    pub fn new(mut source: R) -> Result<Self, ReadError> {
        let mut magic = [0; 8];
        match source.read_exact(&mut magic) {
            Ok(()) if magic == *MAGIC => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(ReadError::Io(error));
            }
            Ok(()) | Err(_) => return Err(ReadError::NotATrace),
        }
        Ok(Self { source, labels: BTreeMap::new(), hasher: blake3::Hasher::new() })
    }

    /// Hash over what was read so far; at the end of a whole file, that of the run.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    fn fill(&mut self, bytes: &mut [u8], may_end: bool) -> Result<bool, ReadError> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) if filled == 0 && may_end => return Ok(false),
                Ok(0) => return Err(ReadError::Truncated),
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Io(error)),
            }
        }
        self.hasher.update(bytes);
        Ok(true)
    }

    fn next_event(&mut self) -> Result<Option<Event>, ReadError> {
        loop {
            let mut bytes = [0; RECORD];
            if !self.fill(&mut bytes, true)? {
                return Ok(None);
            }
            let record = Record::decode(&bytes).ok_or(ReadError::UnknownKind(bytes[8]))?;
            if record.kind != Kind::Label {
                let named = record.kind == Kind::Delivery;
                let name = named.then(|| self.labels.get(&record.label).cloned()).flatten();
                return Ok(Some(Event { record, protocol: name.unwrap_or_default() }));
            }
            let mut name = vec![0; usize::try_from(record.size).unwrap_or(0).min(4096)];
            self.fill(&mut name, false)?;
            self.labels.insert(record.label, String::from_utf8_lossy(&name).into_owned());
        }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Event, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_event().transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sample() -> (Vec<u8>, [u8; 32]) {
        let file = Shared::default();
        let mut trace = Trace::new(2);
        trace.write_to(Box::new(file.clone())).unwrap();
        trace.label(0, 4, "/kad");
        for number in 0..5000 {
            let delivery =
                Record::new(number, Kind::Delivery).node(NodeIndex(1)).peer(NodeIndex(2));
            trace.record(Record { label: 4, size: 7, digest: number, ..delivery });
        }
        trace.record(Record::new(u64::MAX, Kind::Crash).node(NodeIndex(3)));
        assert_eq!(trace.recent().count(), 2);
        trace.finish().unwrap();
        let bytes = file.0.borrow().clone();
        (bytes, trace.hash())
    }

    #[test]
    fn a_file_reads_back_and_hashes_to_its_run() {
        let (bytes, hash) = sample();
        let mut reader = Reader::new(bytes.as_slice()).unwrap();
        let events: Vec<_> = reader.by_ref().collect::<Result<_, _>>().unwrap();
        assert_eq!(events.len(), 5001);
        assert_eq!(reader.hash(), hash);
        assert_eq!(events[9].to_string(), "0.000000s delivery at node 1 from node 2, 7 B of /kad");
        assert_eq!(events[5000].record.kind, Kind::Crash);
        assert_eq!(events[5000].record.at, Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn a_file_that_is_cut_or_foreign_is_said_to_be() {
        let (bytes, _) = sample();
        let cut = Reader::new(&bytes[..bytes.len() - 1]).unwrap().last().unwrap();
        assert!(matches!(cut, Err(ReadError::Truncated)));
        assert!(matches!(Reader::new(&b"PNG"[..]), Err(ReadError::NotATrace)));
        let mut strange = bytes[..8 + RECORD].to_vec();
        strange[16] = 99;
        let read = Reader::new(strange.as_slice()).unwrap().next().unwrap();
        assert!(matches!(read, Err(ReadError::UnknownKind(99))));
    }

    #[test]
    fn every_kind_has_its_own_number_and_comes_back() {
        for (number, kind) in (0_u8..).zip(Kind::ALL) {
            assert_eq!(kind as u8, number);
            let record = Record::new(5, kind).node(NodeIndex(0));
            assert_eq!(Record::decode(&record.encode()), Some(record));
        }
    }

    #[test]
    fn the_digest_sees_every_byte_and_the_length() {
        let bytes: Vec<u8> = (0..40).collect();
        for length in 0..bytes.len() {
            let whole = digest(0, &bytes[..length]);
            assert_ne!(whole, digest(0, &bytes[..=length]));
            for at in 0..length {
                let mut other = bytes[..length].to_vec();
                other[at] ^= 1;
                assert_ne!(digest(0, &other), whole);
            }
        }
        assert_ne!(digest(0, &[0; 3]), digest(0, &[0; 4]));
    }
}
