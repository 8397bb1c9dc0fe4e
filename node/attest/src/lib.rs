//! TEE evidence: making it, checking it, and the channel that is bound to it.
//!
//! Owns: attesters, the verification of quotes, the verdict cache, and the attested channel.
//! Must not: choose a policy or read its file; policy, clock and stream are arguments. Never signs
//! report data from outside: every quote is over one of the two hashes of `attest::binding`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod appraiser;
mod attester;
mod cache;
mod certificate;
pub mod channel;
mod open;
mod policy_file;
#[cfg(feature = "dev-tee")]
pub mod simulated;
mod tdx;

use std::fmt;
use std::sync::Arc;

use cocoon_protocol::units::Timestamp;

pub use appraiser::Appraiser;
pub use attester::{Attester, QuoteError, Quoted};
pub use open::OpenAttester;
pub use policy_file::{PolicyFileError, parse_policy};

/// Where the present comes from: an argument here, as everywhere.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}
