//! The hash over a run: equal runs have equal hashes, and no others.
//!
//! Owns: what of an event and of a fact enters it. Must not: keep anything but the hash.

use simnet_host::{HostId, Observation};
use simnet_scenario::Moment;

/// Lines that are hashed at a time: 48 KiB, whose chunks the hash takes side by side.
const LINES: usize = 2 * 1024;
/// Bytes of a line: a moment and two numbers.
const LINE: usize = 24;

/// A hash that is fed with numbers.
#[derive(Debug)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    lines: Box<[[u8; LINE]; LINES]>,
    waiting: usize,
}

impl Trace {
    pub(crate) fn new() -> Self {
        let hasher = blake3::Hasher::new_derive_key("cocoon simnet trace of the abstract tier v1");
        Self { hasher, lines: Box::new([[0; LINE]; LINES]), waiting: 0 }
    }

    /// Something happened at a moment; the numbers say what.
    #[inline]
    pub(crate) fn add(&mut self, at: Moment, [first, second]: [u64; 2]) {
        let words = [at.as_nanos(), first, second];
        if let Some(line) = self.lines.get_mut(self.waiting) {
            for (place, word) in line.as_chunks_mut().0.iter_mut().zip(words) {
                *place = word.to_le_bytes();
            }
        }
        self.waiting += 1;
        if self.waiting == LINES {
            self.hash();
        }
    }

    fn hash(&mut self) {
        let lines = self.lines.get(..self.waiting).unwrap_or_default();
        self.hasher.update(lines.as_flattened());
        self.waiting = 0;
    }

    /// The ledger answers a host.
    pub(crate) fn answer(&mut self, at: Moment, host: u32) {
        self.add(at, [30 << 56, host.into()]);
    }

    /// A host states a fact. What is money or choice in it enters; the rest follows from events.
    pub(crate) fn fact(&mut self, at: Moment, HostId(host): HostId, fact: &Observation) {
        let number = |bytes: &[u8; 32]| {
            let [a, b, c, d, e, f, g, h, ..] = *bytes;
            u64::from_be_bytes([a, b, c, d, e, f, g, h])
        };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "what is not money or choice is left out"
        )]
        let (kind, what) = match fact {
            Observation::Started { restart } => (1, u64::from(*restart)),
            Observation::Crashed => (2, 0),
            Observation::Left => (3, 0),
            Observation::JobSubmitted { job, .. } => (4, number(job.as_bytes())),
            Observation::PromptSent { provider, .. } => (5, number(provider.as_bytes())),
            Observation::JobFinished { cost, .. } => (6, cost.as_nano()),
            Observation::JobFailed { kind, paid, .. } => {
                (7, paid.as_nano() ^ (u64::from(*kind as u8) << 56))
            }
            Observation::Promised { cumulative, .. } => (8, cumulative.as_nano()),
            Observation::Held { cumulative, .. } => (9, cumulative.as_nano()),
            Observation::Exposed { value, .. } => (10, value.as_nano()),
            Observation::Settled { paid, .. } => (11, paid.as_nano()),
            Observation::SessionOpened { peer, .. } => (12, number(peer.as_bytes())),
            Observation::SessionFailed { peer, .. } => (13, number(peer.as_bytes())),
            Observation::Offered { prices, .. } => (14, prices.completion.as_nano()),
            Observation::Defect { .. } => (15, 0),
            _ => return,
        };
        self.add(at, [(64 + kind) << 56 | u64::from(host), what]);
    }

    /// The hash over everything so far.
    pub(crate) fn finish(&mut self) -> [u8; 32] {
        self.hash();
        *self.hasher.finalize().as_bytes()
    }
}
