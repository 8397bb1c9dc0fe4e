//! TEE evidence: making it, checking it, and the channel that is bound to it.
//!
//! Owns: attesters, the verification of quotes, the verdict cache, and the attested channel.
//! Must not: choose a policy or read its file; policy, clock and stream are arguments. Never signs
//! report data from outside: every quote is over one of the two hashes of `attest::binding`.
//!
//! ```
//! use std::sync::Arc;
//! use cocoon_attest::channel::{
//!     AcceptOptions, ChannelIdentity, ChannelTasks, ConnectOptions, IdentityOptions, accept, connect,
//! };
//! use cocoon_attest::{Appraiser, Clock, OpenAttester};
//! use cocoon_protocol::attest::{NetworkId, Policy, Tier};
//! use cocoon_protocol::identity::NodeKey;
//! use cocoon_protocol::units::Timestamp;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let network = NetworkId::from_name("example");
//! let clock = Clock::new(|| Timestamp::from_unix_secs(1_800_000_000));
//! let (provider, consumer) = (NodeKey::from_secret(&[1; 32]), NodeKey::from_secret(&[2; 32]));
//! let identity = Arc::new(ChannelIdentity::new(IdentityOptions {
//!     key: provider.clone(),
//!     attester: Arc::new(OpenAttester),
//!     network,
//!     capabilities: [0; 32],
//!     configuration: [0; 32],
//!     model_manifest: None,
//!     clock: clock.clone(),
//! }));
//! let (near, far) = tokio::io::duplex(65_536);
//! let options = ConnectOptions {
//!     dialled: provider.id(),
//!     network,
//!     appraiser: Arc::new(Appraiser::new(Policy::closed())),
//!     minimum_tier: Tier::Open,
//!     capabilities: None,
//!     identity: None,
//!     clock,
//!     tasks: ChannelTasks::default(),
//! };
//! let accepting = AcceptOptions { peer: consumer.id(), demand: None, tasks: ChannelTasks::default() };
//! let (near, far) = tokio::try_join!(connect(near, options), accept(far, identity, accepting))?;
//! assert_eq!(near.verdict().tier, Tier::Open);
//! let (mut frames, _) = near.split();
//! frames.send("a job".into()).await?;
//! assert_eq!(far.split().1.recv().await?.as_deref(), Some(&b"a job"[..]));
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod advisory_file;
mod appraiser;
mod attester;
#[cfg(feature = "dev-tee")]
pub mod benchmark;
mod cache;
mod certificate;
pub mod channel;
pub mod collateral;
pub mod detect;
pub mod evidence_file;
mod examination;
mod explain;
#[cfg(any(all(test, feature = "dev-tee"), feature = "fuzzing"))]
pub mod fuzzing;
mod gpu;
mod hardware;
mod instant;
pub mod measure;
mod nvidia;
mod open;
mod policy_entry;
mod policy_file;
mod rtmr;
mod sev_guest;
#[cfg(feature = "dev-tee")]
pub mod simulated;
mod snp;
mod tdx;
mod tsm;

use std::fmt;
use std::sync::Arc;

use cocoon_protocol::units::Timestamp;

pub use advisory_file::{
    ADVISORY_FILE_BYTES, AdvisoryFileError, read_advisories, read_newer_advisories, sign_advisories,
};
pub use appraiser::Appraiser;
pub use attester::{ANSWER_TIMEOUT, Attester, QuoteError, Quoted};
pub use examination::{
    Check, Examination, FileAppraisal, FileExamination, GpuExamination, Standing,
};
pub use explain::{Explanation, Section, Stance, Statement, explain};
pub use gpu::{GpuAttester, GpuTrialError, WithGpus, record_gpus, try_gpus};
pub use hardware::{
    EndorsementShelf, HardwareAttester, HardwareError, RawEvidence, Tee, host_data,
};
pub use instant::parse_instant;
pub use nvidia::gpu_chain_from_pem;
#[cfg(feature = "nvml")]
pub use nvidia::{NvidiaError, NvidiaGpu, NvidiaGpus, NvidiaSurvey};
pub use open::OpenAttester;
pub use policy_entry::{claimed_measurements, gpu_policy_entry, policy_entry};
pub use policy_file::{PolicyFileError, parse_policy};
pub use rtmr::{
    MEASUREMENTS as TDX_MEASUREMENTS, RtmrError, expected_rtmr3, extend_rtmr3, read_rtmr3,
};
pub use sev_guest::{DEVICE as SEV_GUEST_DEVICE, SevGuestError};
pub use tsm::{REPORTS as TSM_REPORTS, TsmError, TsmOptions, TsmProvider, TsmStep};

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
