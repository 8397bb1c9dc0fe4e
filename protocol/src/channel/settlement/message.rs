//! What a vault is made with, what can be said to it, and what leaves it.
//!
//! Owns: the words; they are those of `contracts/vault/messages.tolk`.
//! Must not: know their cells; the ledger client builds those.

use crate::channel::{SignedRelease, SignedVoucher, VaultPublicKey};
use crate::identity::{NodeId, TonAddress};
use crate::units::{NanoTon, Timestamp};

/// Requests in one [`Command::Rebalance`].
pub const BATCH: usize = 16;
const BASIS_POINTS: u64 = 10_000;

/// What a vault is made with. Part of its address; never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// The first hot key: signs vouchers and orders until [`Command::RotateKey`].
    pub client_key: VaultPublicKey,
    /// The cold wallet: withdrawals go here, and it may give any command.
    pub owner: TonAddress,
    /// How long a provider may settle after a release was requested, in seconds.
    pub release_delay: u32,
    /// Most that the hot key may allocate in one UTC day; [`NanoTon::MAX`] for no cap.
    pub daily_cap: NanoTon,
    /// The network's fee on what providers are paid, in hundredths of a percent.
    pub fee_basis_points: u16,
    /// Where the fee goes.
    pub treasury: TonAddress,
}

impl Parameters {
    /// The network's share of a payment, rounded down.
    pub fn fee(&self, payment: NanoTon) -> NanoTon {
        let fee = payment.checked_fraction(u64::from(self.fee_basis_points), BASIS_POINTS);
        // Ten thousandths of an amount always fit when the share is at most one.
        fee.unwrap_or(payment)
    }
}

/// What the chain charges for one message, in nanoTON. The contract never writes prices down; it
/// reads them from the chain's configuration, so the model is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fees {
    /// The contract's upper bound of what the operation costs: must be there before it accepts.
    pub bound: NanoTon,
    /// What the contract withholds from an external settlement's or a sweep's payment.
    pub withheld: NanoTon,
    /// What the transaction takes from the vault's balance.
    pub used: NanoTon,
    /// Forward fee of one plain transfer.
    pub transfer: NanoTon,
    /// What an external message's arrival takes from the balance before the contract looks at it;
    /// part of `used`.
    pub arrival: NanoTon,
    /// What the sender of an internal message put into it.
    pub brought: NanoTon,
}

/// Money that is set aside, or more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationRequest {
    /// For whom.
    pub provider: NodeId,
    /// Where it will be paid to; must stay the same while the allocation exists.
    pub payout: TonAddress,
    /// How much more. Zero only cancels a pending release.
    pub amount: NanoTon,
}

/// What can be ordered of a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Creates an allocation, or grows one and cancels its pending release.
    Allocate(AllocationRequest),
    /// Up to [`BATCH`] allocations, all or none.
    Rebalance(Vec<AllocationRequest>),
    /// Starts the release delay.
    RequestRelease(NodeId),
    /// Takes back the rest of an allocation whose delay has passed.
    FinalizeRelease(NodeId),
    /// Ends an allocation at once, with the payment that its provider signed.
    Release(SignedRelease),
    /// Sends free money to the owner.
    Withdraw(NanoTon),
    /// With no allocation left, sends also the reserve to the owner.
    Close,
    /// Puts another hot key in force; only the owner's. What the old key ordered is void, what it
    /// promised is not: an allocation keeps the key that it was made under, and does not grow.
    RotateKey(VaultPublicKey),
}

/// A command as the hot key signs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The vault that it is for.
    pub vault: TonAddress,
    /// The vault's, so that an order works once.
    pub seqno: u32,
    /// The last second at which it may be executed.
    pub valid_until: Timestamp,
    /// What is ordered.
    pub command: Command,
    /// Whose signature it bears. The model knows no cells, so it takes this for checked.
    pub signer: VaultPublicKey,
}

/// What can reach a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A plain transfer.
    TopUp(NanoTon),
    /// External: the vault pays the gas.
    Order(Order),
    /// Internal, with its own gas; the daily cap does not bind it.
    OwnerCommand {
        /// Who sent it.
        from: TonAddress,
        /// What is ordered.
        command: Command,
    },
    /// External, carried by anyone: the gas comes out of the payment.
    SettleExternal {
        /// What is redeemed.
        voucher: SignedVoucher,
        /// [`SignedVoucher::consent`] of the provider: without it the consumer, who has all its
        /// vouchers, could settle them one by one and burn the provider's income as fees.
        consent: [u8; 64],
    },
    /// Internal, by anyone: the message brings its own gas, and the payment's forward fee.
    SettleInternal(SignedVoucher),
    /// External, by anyone: the accrued fee goes to the treasury.
    Sweep,
}

/// Money that leaves the vault, before the chain takes its forward fee out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// To whom.
    pub to: TonAddress,
    /// How much.
    pub amount: NanoTon,
}
