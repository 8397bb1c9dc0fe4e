//! What the chain charges: the contract's measured gas at the prices of June 2026.
//!
//! Owns: one figure for each operation; they are those of `contracts/gas/vault.json`.
//! Must not: know accounts.

use cocoon_protocol::channel::settlement::{Command, Fees, Message};
use cocoon_protocol::units::NanoTon;

/// What the node wants in a wallet beyond the amount before it sends one: ten times the cost.
pub const TRANSFER_RESERVE: NanoTon = NanoTon::from_nano(20_000_000);
/// A transfer from a wallet of version 5 that opens a vault, the wallet's own deployment and the
/// message's forward fee included: 0.0023 TON in all, less [`DEPLOY`].
pub(super) const WALLET_TRANSFER: NanoTon = NanoTon::from_nano(2_250_000);
/// What a vault takes for a deposit or top-up.
pub(super) const DEPLOY: NanoTon = NanoTon::from_nano(50_068);
/// The forward fee of a plain transfer, which comes out of it unless the contract pays it.
pub(super) const FORWARD: NanoTon = NanoTon::from_nano(66_667);

/// What an external settlement withholds beyond its cost, for what comes after the meter is read.
const TAIL: u64 = 111_133;

/// The figures for a message to a vault with so many allocations.
pub(super) fn fees(message: &Message, allocations: usize) -> Fees {
    let levels = depth(allocations);
    let [used, withheld, bound] = match message {
        Message::Order(order) => command(&order.command, levels),
        Message::SettleExternal { .. } => {
            let used = 721_490_u64.saturating_add(levels.saturating_mul(41_667));
            [used, used.saturating_add(TAIL), 4_435_069]
        }
        Message::Sweep => [413_622, 524_755, 4_435_069],
        // The message brings its own gas.
        Message::TopUp(_) | Message::OwnerCommand { .. } | Message::SettleInternal(_) => {
            [0, 0, 4_000_001]
        }
    };
    let [used, withheld, bound] = [used, withheld, bound].map(NanoTon::from_nano);
    // Whoever sends an internal message puts enough into it.
    Fees { bound, withheld, used, transfer: FORWARD, arrival: NanoTon::ZERO, brought: NanoTon::MAX }
}

fn command(command: &Command, levels: u64) -> [u64; 3] {
    let deeper = |nano: u64| nano.saturating_add(levels.saturating_mul(47_422));
    match command {
        Command::Allocate(_) => [deeper(779_002), 0, 4_138_069],
        Command::Rebalance(requests) => {
            let each = u64::try_from(requests.len()).unwrap_or(u64::MAX).saturating_mul(443_154);
            [94_665_u64.saturating_add(each), 0, 11_039_670]
        }
        Command::RequestRelease(_) => [deeper(645_068), 0, 4_116_735],
        Command::FinalizeRelease(_) => [deeper(598_627), 0, 4_116_735],
        Command::Release(_) => [deeper(915_423), 0, 4_200_935],
        Command::Withdraw(_) => [677_089, 0, 4_103_935],
        Command::Close => [696_557, 0, 4_099_669],
        // Only the owner's, whose message brings its gas.
        Command::RotateKey(_) => [0, 0, 0],
    }
}

/// Levels of the vault's map: each costs about two thirds of a thousand gas.
fn depth(allocations: usize) -> u64 {
    u64::from(allocations.max(1).next_power_of_two().ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_protocol::channel::settlement::{AllocationRequest, Order};
    use cocoon_protocol::channel::{VaultKey, Voucher};
    use cocoon_protocol::identity::{NodeId, TonAddress};
    use cocoon_protocol::units::Timestamp;

    const MEASURED: &str = include_str!("../../../../contracts/gas/vault.json");

    fn measured(name: &str) -> u64 {
        let (_, entry) = MEASURED.split_once(&format!("\"{name}\"")).unwrap();
        let (_, fee) = entry.split_once("\"fee_nano\":").unwrap();
        let digits: String = fee.trim().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    }

    fn order(command: Command) -> Message {
        Message::Order(Order {
            vault: TonAddress { workchain: 0, hash: [1; 32] },
            seqno: 0,
            valid_until: Timestamp::EPOCH,
            command,
            signer: VaultKey::from_secret(&[1; 32]).public(),
        })
    }

    #[test]
    fn the_figures_are_the_measured_ones() {
        let provider = NodeId::from_bytes([2; 32]);
        let payout = TonAddress { workchain: 0, hash: [3; 32] };
        let amount = NanoTon::from_nano(1);
        let allocate = order(Command::Allocate(AllocationRequest { provider, payout, amount }));
        let used = |message: &Message, size| fees(message, size).used.as_nano();
        let close_to = |ours: u64, theirs: u64| ours.abs_diff(theirs) * 100 <= theirs;
        assert_eq!(used(&allocate, 1), measured("allocate, first"));
        assert!(close_to(used(&allocate, 64), measured("allocate, 64th")));
        let request = order(Command::RequestRelease(provider));
        assert_eq!(used(&request, 1), measured("request release"));
        let finalize = order(Command::FinalizeRelease(provider));
        assert_eq!(used(&finalize, 1), measured("finalize release"));
        assert_eq!(used(&order(Command::Withdraw(amount)), 1), measured("withdraw"));
        assert_eq!(used(&order(Command::Close), 1), measured("close"));
        assert_eq!(used(&Message::Sweep, 1), measured("sweep"));
        assert_eq!(DEPLOY.as_nano(), measured("deploy with a deposit"));
        let receipts_root = [0; 32];
        let voucher =
            Voucher { vault: payout, provider, epoch: 1, cumulative: amount, receipts_root };
        let voucher = VaultKey::from_secret(&[1; 32]).sign(voucher);
        let settle = Message::SettleExternal { voucher, consent: [0; 64] };
        assert_eq!(used(&settle, 1), measured("settle external, 1 allocation"));
        assert!(close_to(used(&settle, 64), measured("settle external, 64 allocations")));
    }
}
