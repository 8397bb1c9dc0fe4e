//! The ledger of a run: every vault as `cocoon_protocol::channel::settlement` has it, and blocks.
//!
//! Owns: vaults, wallets, what is under way, and the account of every nanoTON.
//! Must not: know hosts beyond their number; money that is not in it does not exist.

use cocoon_protocol::Input;
use cocoon_protocol::output::LedgerCommand;
use simnet_scenario::Moment;

use crate::fabric::HostId;
use crate::host::HostSpec;

/// All vaults and wallets of a run.
#[derive(Debug, Default)]
pub struct Ledger {}

impl Ledger {
    /// Takes a command of a host; its answer comes with a later block.
    pub fn submit(&mut self, from: &HostSpec, command: LedgerCommand, now: Moment) {
        let _ = (from, command, now);
    }

    /// When the next block or answer is due; `None` while nothing is under way.
    pub const fn next_block(&self) -> Option<Moment> {
        None
    }

    /// Makes all blocks up to `now`; the answers are for these hosts, in order.
    pub fn advance(&mut self, now: Moment) -> Vec<(HostId, Input)> {
        let _ = now;
        Vec::new()
    }
}
