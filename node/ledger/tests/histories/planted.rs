//! Bugs that the model could have, planted from outside to see whether the comparison notices.
//!
//! Owns: what each bug does to what the model is told. Must not: touch the contract.

use cocoon_protocol::channel::settlement::{Command, Fees, Message, Parameters, Vault};
use cocoon_protocol::units::{NanoTon, Timestamp};

use crate::actors::OWNER;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    /// An order works twice.
    ForgetsSeqnos,
    /// Anybody may command by message.
    TakesAnyoneForTheOwner,
    /// Settles in the second in which the release delay has passed.
    SettlesOneSecondTooLong,
    /// A hundredth of a percent more for the network.
    MiscountsTheFee,
    /// The hot key may allocate what it likes.
    ForgetsTheDailyCap,
    /// Vouchers of the old key die with it.
    ForgetsOldKeys,
    /// Allocates what the gas of doing so needs.
    ForgetsItsGas,
    /// Keeps the first receipts root.
    IgnoresLaterVouchers,
}

impl Planted {
    pub(crate) const ALL: [Self; 8] = [
        Self::ForgetsSeqnos,
        Self::TakesAnyoneForTheOwner,
        Self::SettlesOneSecondTooLong,
        Self::MiscountsTheFee,
        Self::ForgetsTheDailyCap,
        Self::ForgetsOldKeys,
        Self::ForgetsItsGas,
        Self::IgnoresLaterVouchers,
    ];

    pub(crate) fn parameters(self, mut parameters: Parameters) -> Parameters {
        match self {
            Self::MiscountsTheFee if parameters.fee_basis_points > 0 => {
                parameters.fee_basis_points += 1;
            }
            Self::ForgetsTheDailyCap => parameters.daily_cap = NanoTon::MAX,
            _ => {}
        }
        parameters
    }

    /// The model, as somebody with this bug would have written it.
    pub(crate) fn told(
        self,
        model: &Vault,
        message: &Message,
        fees: Fees,
        now: u64,
    ) -> (Message, Fees, Timestamp) {
        let (mut message, mut fees, mut now) = (message.clone(), fees, now);
        match (self, &mut message) {
            (Self::ForgetsSeqnos, Message::Order(order)) => order.seqno = model.seqno(),
            (Self::TakesAnyoneForTheOwner, Message::OwnerCommand { from, .. }) => *from = OWNER,
            (
                Self::SettlesOneSecondTooLong,
                Message::SettleExternal { .. } | Message::SettleInternal(_),
            ) => now -= 1,
            (Self::ForgetsOldKeys, Message::SettleInternal(signed)) => {
                let provider = signed.voucher.provider;
                if model.key_of(&provider) != model.key() {
                    signed.signature = [0; 64];
                }
            }
            (Self::ForgetsItsGas, Message::Order(order))
                if matches!(order.command, Command::Allocate(_)) =>
            {
                fees.bound = NanoTon::ZERO;
            }
            (Self::IgnoresLaterVouchers, Message::SettleExternal { voucher, .. }) => {
                let provider = voucher.voucher.provider;
                let paid = model.allocation(&provider).is_some_and(|it| it.paid > NanoTon::ZERO);
                if paid {
                    voucher.voucher.cumulative = NanoTon::ZERO;
                }
            }
            _ => {}
        }
        (message, fees, Timestamp::from_unix_secs(now))
    }
}
