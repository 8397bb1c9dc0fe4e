//! A payment channel between one consumer and one provider: promises off chain, money on chain.
//!
//! Owns: the voucher, its two ends, and the model of the contract that redeems it.
//! Must not: know what was bought; a job's price comes in as an amount.

mod allocation;
pub mod funds;
mod holder;
mod payee;
mod payer;
pub mod settlement;
mod voucher;

pub use allocation::Allocation;
pub use holder::HolderClaim;
pub use payee::{
    Accepted, Closed, OpenError, Payee, PayeeError, PayeeState, VoucherBlame, VoucherError,
};
pub use payer::{CatchUpError, PayError, Payer, PayerState, Payment, Repayment, ReserveError};
pub use voucher::{
    BadSignature, ChannelId, RELEASE_MAGIC, Release, SignedRelease, SignedVoucher, VOUCHER_MAGIC,
    VaultKey, VaultPublicKey, VerifiedVoucher, Voucher,
};

use crate::identity::JobId;
use crate::units::NanoTon;

/// What one job has cost so far, as its consumer pays it. Travels beside each voucher.
///
/// Jobs share a channel but not a stream, so their vouchers may overtake one another: the one that
/// arrives first then brings the other job's money too. The total says how much of it is for this
/// job; the rest waits as surplus until the other job's message claims it. The total need not be
/// signed: it only divides money that a signed voucher has already brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobTotal {
    /// Which job.
    pub job: JobId,
    /// All that was promised for it so far.
    pub total: NanoTon,
}
