//! Randomness of a run: every stream follows from the seed, a label and an index.
//!
//! Owns: how streams are kept apart, so that one more draw in one place moves nothing elsewhere.
//! Must not: touch the operating system's randomness.

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

/// The seed of a run. The same seed and scenario give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream of draws for one purpose (`label`) of one thing (`index`: a host, a link, …).
    pub fn stream(self, label: &str, index: u64) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.bytes(label, index))
    }

    /// 32 bytes for one purpose of one thing: keys, and seeds of parts that draw by themselves.
    pub fn bytes(self, label: &str, index: u64) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("cocoon simnet draw v1");
        hasher.update(&self.0.to_be_bytes());
        hasher.update(&index.to_be_bytes());
        hasher.update(label.as_bytes());
        *hasher.finalize().as_bytes()
    }
}
