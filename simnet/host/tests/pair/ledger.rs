//! A ledger of a few lines: vaults and allocations, answers with the next block.
//!
//! Owns: enough to pay a job. Must not: be taken for the contract's model.

use std::collections::BTreeMap;
use std::time::Duration;

use cocoon_protocol::Input;
use cocoon_protocol::channel::{Allocation, VaultPublicKey};
use cocoon_protocol::identity::{NodeId, TonAddress};
use cocoon_protocol::input::{LedgerFailure, VaultSnapshot};
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::units::NanoTon;
use simnet_host::{HostId, HostSpec};
use simnet_scenario::Moment;

struct Vault {
    key: VaultPublicKey,
    free: NanoTon,
    allocations: BTreeMap<NodeId, Allocation>,
}

/// Vaults by their owners.
#[derive(Default)]
pub(crate) struct Ledger {
    vaults: BTreeMap<TonAddress, Vault>,
    answers: Vec<(Moment, HostId, Input)>,
}

fn address(host: HostId) -> TonAddress {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&host.0.to_be_bytes());
    TonAddress { workchain: 0, hash }
}

impl Ledger {
    pub(crate) fn submit(&mut self, from: &HostSpec, command: LedgerCommand, now: Moment) {
        let own = address(from.id);
        let answer = match command {
            LedgerCommand::OpenVault { deposit } => {
                let key = from.consumer.as_ref().unwrap().vault_key.public();
                let free = deposit.saturating_sub(cocoon_protocol::limits::VAULT_RESERVE);
                let vault = self.vaults.entry(own);
                let empty = || Vault { key, free, allocations: BTreeMap::default() };
                let vault = vault.or_insert_with(empty);
                let allocations = vault.allocations.iter().map(|(to, it)| (*to, *it)).collect();
                Input::VaultReady { vault: own, free: vault.free, allocations }
            }
            LedgerCommand::Allocate { provider, payout, amount } => {
                let vault = self.vaults.get_mut(&own).unwrap();
                match vault.free.checked_sub(amount) {
                    None => {
                        let available = vault.free;
                        let failure = LedgerFailure::NoFunds { needed: amount, available };
                        Input::AllocationFailed { provider, failure }
                    }
                    Some(free) => {
                        vault.free = free;
                        let new = Allocation::new(payout, NanoTon::ZERO, 1);
                        let allocation = vault.allocations.entry(provider).or_insert(new);
                        allocation.limit = allocation.limit.checked_add(amount).unwrap();
                        Input::Allocated { provider, allocation: *allocation, free }
                    }
                }
            }
            LedgerCommand::ReadVault { vault } => {
                let snapshot = self.vaults.get(&vault).map(|found| VaultSnapshot {
                    key: found.key,
                    allocation: found.allocations.get(&from.key.id()).copied(),
                });
                Input::VaultRead { vault, snapshot: Ok(snapshot) }
            }
            LedgerCommand::Settle { voucher } => {
                let vault = self.vaults.get_mut(&voucher.voucher.vault).unwrap();
                assert!(voucher.verify(&vault.key).is_ok());
                let allocation = vault.allocations.get_mut(&voucher.voucher.provider).unwrap();
                let paid = voucher.voucher.cumulative.min(allocation.limit).max(allocation.paid);
                allocation.paid = paid;
                Input::Settled { voucher, paid }
            }
        };
        self.answers.push((now.after(Duration::from_millis(400)), from.id, answer));
    }

    pub(crate) fn next_block(&self) -> Option<Moment> {
        self.answers.iter().map(|(at, _, _)| *at).min()
    }

    pub(crate) fn advance(&mut self, now: Moment) -> Vec<(HostId, Input)> {
        let (due, later) =
            std::mem::take(&mut self.answers).into_iter().partition(|it| it.0 <= now);
        self.answers = later;
        let due: Vec<(Moment, HostId, Input)> = due;
        due.into_iter().map(|(_, to, answer)| (to, answer)).collect()
    }
}
