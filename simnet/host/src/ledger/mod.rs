//! The ledger of a run: every vault as `cocoon_protocol::channel::settlement` has it, and blocks.
//!
//! Owns: vaults, wallets, what is under way, and the account of every nanoTON.
//! Must not: know hosts beyond their number; money that is not in it does not exist.
//!
//! A tier's event loop calls [`Ledger::submit`] for a host, [`Ledger::advance`] when
//! [`Ledger::next_block`] has come, gives the answers to their hosts, and then [`Ledger::report`].
//! A host that crashes takes what it waited for with it: [`Ledger::crashed`]. What it had sent is
//! executed all the same.

mod books;
mod chain;
mod desk;
mod fact;
pub mod gas;
mod terms;
#[cfg(test)]
mod tests;

use cocoon_protocol::Input;
use cocoon_protocol::channel::settlement::{AllocationRequest, Parameters, Vault};
use cocoon_protocol::identity::{NodeId, TonAddress};
use cocoon_protocol::input::LedgerFailure;
use cocoon_protocol::output::LedgerCommand;
use cocoon_protocol::units::NanoTon;
use rand_core::Rng as _;
use simnet_scenario::{ChaCha8Rng, Moment, Seed};

pub use books::Books;
pub use fact::{BlockReport, LedgerFact};
pub use terms::{LedgerFaults, LedgerTerms, Outage, Reorganisation, Slowness, Window, chain_time};

use crate::fabric::HostId;
use crate::host::HostSpec;
use crate::observation::Observer;
use chain::{Chain, VaultIndex};
use desk::{Aim, Desk, Task};

/// All vaults and wallets of a run.
#[derive(Debug)]
pub struct Ledger {
    terms: LedgerTerms,
    seed: Seed,
    draws: ChaCha8Rng,
    chain: Chain,
    desk: Desk,
    /// The newest block that was made, or might have been.
    height: u64,
    /// Reorganisations that have happened.
    reorganised: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(LedgerTerms::default(), Seed(0))
    }
}

impl Ledger {
    /// A ledger without any account.
    pub fn new(mut terms: LedgerTerms, seed: Seed) -> Self {
        terms.faults.reorganisations.sort_by_key(|it| it.at);
        Self {
            terms,
            seed,
            draws: seed.stream("ledger", 0),
            chain: Chain::default(),
            desk: Desk::default(),
            height: 0,
            reorganised: 0,
        }
    }

    /// What the chain is like.
    pub const fn terms(&self) -> &LedgerTerms {
        &self.terms
    }

    /// Takes a command of a host; its answer comes with a later block.
    pub fn submit(&mut self, from: &HostSpec, command: LedgerCommand, now: Moment) {
        let task = match command {
            LedgerCommand::OpenVault { deposit } => match self.own_vault(from) {
                Some(vault) => Task::Open { vault, wallet: wallet(from), deposit },
                None => {
                    let failure = LedgerFailure::Unavailable { reason: NO_CONSUMER.to_owned() };
                    Task::Answer(Box::new(Input::VaultFailed { failure }))
                }
            },
            LedgerCommand::Allocate { provider, payout, amount } => {
                let request = AllocationRequest { provider, payout, amount };
                self.order(from, Aim::Allocate(request)).unwrap_or_else(|| {
                    let failure = LedgerFailure::Unavailable { reason: NO_CONSUMER.to_owned() };
                    Task::Answer(Box::new(Input::AllocationFailed { provider, failure }))
                })
            }
            LedgerCommand::ReadVault { vault } => Task::Read { vault, provider: from.key.id() },
            LedgerCommand::Settle { voucher } => {
                Task::Settle { voucher, consent: voucher.consent(&from.key) }
            }
        };
        self.start(from.id, task, now);
    }

    /// A consumer asks for what is left of an allocation, or takes it when its time has come, as
    /// the node's operator does. Answered by `Input::Released` when it was executed.
    pub fn release(&mut self, from: &HostSpec, provider: NodeId, now: Moment) {
        if let Some(task) = self.order(from, Aim::Release(provider)) {
            self.start(from.id, task, now);
        }
    }

    /// A consumer leaves for good: every allocation is released, and after the delay everything
    /// that is free goes to its wallet. Its process need not live for that.
    pub fn retire(&mut self, from: &HostSpec, now: Moment) {
        if let Some(task) = self.order(from, Aim::Retire) {
            self.start(from.id, task, now);
        }
    }

    /// Gives a consumer's wallet money, instead of what it would get when it opens its vault.
    pub fn fund(&mut self, host: &HostSpec, amount: NanoTon) {
        self.chain.mint(host.id, wallet(host), amount);
    }

    /// A host's process died: nothing that it waited for is answered any more.
    pub fn crashed(&mut self, host: HostId) {
        self.desk.crashed(host);
    }

    /// When the next block or answer is due; `None` while nothing is under way.
    pub fn next_block(&self) -> Option<Moment> {
        let block = self.chain.next_eligible().map(|eligible| {
            let height = self.terms.height(eligible).max(self.height).saturating_add(1);
            self.terms.made(height)
        });
        let reorganisation = self.terms.faults.reorganisations.get(self.reorganised);
        [block, self.desk.next(), reorganisation.map(|it| it.at)].into_iter().flatten().min()
    }

    /// Makes all blocks up to `now`; the answers are for these hosts, in order.
    pub fn advance(&mut self, now: Moment) -> Vec<(HostId, Input)> {
        let mut answers = Vec::new();
        while let Some(at) = self.next_block().filter(|at| *at <= now) {
            self.make_block(at);
            self.reorganise(at);
            self.look(at, &mut answers);
        }
        answers
    }

    /// Tells an observer what happened since this was called last.
    pub fn report(&mut self, at: Moment, observer: &mut dyn Observer) {
        let facts = self.chain.take_facts();
        if !facts.is_empty() {
            let (height, books) = (self.terms.height(at), self.chain.books());
            observer.block(at, &BlockReport { height, books, facts: &facts });
        }
    }

    /// Where all money is, as entered message by message.
    pub const fn books(&self) -> Books {
        self.chain.books()
    }

    /// Where all money is, counted anew from every account.
    pub fn audit(&self) -> Books {
        self.chain.audit()
    }

    /// What has arrived at a provider's payout address.
    pub fn income(&self, payout: TonAddress) -> NanoTon {
        self.chain.wallet(payout).map_or(NanoTon::ZERO, |wallet| wallet.income)
    }

    /// What a consumer's vault has paid to providers.
    pub fn spent(&self, consumer: &HostSpec) -> NanoTon {
        let index = self.chain.vault_at(vault_address(consumer));
        let account = index.and_then(|index| self.chain.account(index));
        account.map_or(NanoTon::ZERO, |account| account.spent)
    }

    /// What is in a consumer's wallet.
    pub fn wallet_of(&self, consumer: &HostSpec) -> NanoTon {
        self.chain.wallet(wallet(consumer)).map_or(NanoTon::ZERO, |wallet| wallet.balance)
    }

    /// A consumer's vault as the newest block has it.
    pub fn vault_of(&self, consumer: &HostSpec) -> Option<&Vault> {
        let account = self.chain.account(self.chain.vault_at(vault_address(consumer))?)?;
        account.deployed.then_some(&account.vault)
    }

    /// All vaults on the chain and who holds them, in the order in which they were first wanted.
    pub fn vaults(&self) -> impl Iterator<Item = (HostId, &Vault)> {
        let deployed = self.chain.accounts().filter(|account| account.deployed);
        deployed.map(|account| (account.host, &account.vault))
    }

    /// Operations that hosts wait for.
    pub fn under_way(&self) -> usize {
        self.desk.len()
    }

    fn own_vault(&mut self, from: &HostSpec) -> Option<VaultIndex> {
        let key = from.vault_key()?;
        let (owner, terms) = (wallet(from), &self.terms);
        let parameters = || Parameters {
            client_key: key.public(),
            owner,
            release_delay: u32::try_from(terms.release_delay.as_secs()).unwrap_or(u32::MAX),
            daily_cap: NanoTon::MAX,
            fee_basis_points: terms.fee_basis_points,
            treasury: owner,
        };
        Some(self.chain.vault(from.id, vault_address(from), parameters))
    }

    fn order(&mut self, from: &HostSpec, aim: Aim) -> Option<Task> {
        let signer = from.vault_key()?.public();
        let vault = self.own_vault(from)?;
        Some(Task::Order { vault, signer, aim })
    }

    /// Makes the block of this moment, if messages wait for it.
    fn make_block(&mut self, at: Moment) {
        let height = self.terms.height(at);
        let waits = self.chain.next_eligible().is_some_and(|eligible| eligible < at);
        if height > self.height && self.terms.made(height) == at && waits {
            let oldest = height.saturating_sub(self.terms.horizon());
            self.chain.make_block(height, oldest, at, chain_time(at));
            self.height = height;
        }
    }

    fn reorganise(&mut self, at: Moment) {
        while let Some(due) = self.terms.faults.reorganisations.get(self.reorganised).copied() {
            if due.at > at {
                return;
            }
            self.reorganised = self.reorganised.saturating_add(1);
            let stays = self.terms.height(at).saturating_sub(u64::from(due.depth));
            let (draws, terms) = (&mut self.draws, &self.terms);
            self.chain.undo(stays, || wait(draws, terms, at, 2));
        }
    }

    /// From when on a message that is sent now may be in a block.
    fn eligible(&mut self, now: Moment) -> Moment {
        wait(&mut self.draws, &self.terms, now, 0)
    }

    /// Whether a host reaches the chain.
    fn reachable(&self, host: HostId, at: Moment) -> bool {
        let cut_off = self.terms.faults.outages.iter().enumerate().any(|(number, outage)| {
            let index = u64::try_from(number).unwrap_or(u64::MAX) << 32 | u64::from(host.0);
            outage.window.holds(at)
                && self.seed.stream("ledger outage", index).next_u32() % 1_000
                    < u32::from(outage.hosts_per_thousand)
        });
        !cut_off
    }
}

const NO_CONSUMER: &str = "this host has no vault key";

fn wait(draws: &mut ChaCha8Rng, terms: &LedgerTerms, now: Moment, more: u32) -> Moment {
    let most = terms.longest_wait(now).saturating_add(more);
    let blocks = match most.checked_add(1) {
        Some(choices) => draws.next_u32() % choices,
        None => most,
    };
    now.after(terms.block_time.saturating_mul(blocks))
}

/// Where a consumer's money is outside its vault.
fn wallet(host: &HostSpec) -> TonAddress {
    address("cocoon simnet wallet v1", host)
}

/// Where a consumer's vault is, or will be.
pub fn vault_address(host: &HostSpec) -> TonAddress {
    address("cocoon simnet vault v1", host)
}

fn address(purpose: &str, host: &HostSpec) -> TonAddress {
    TonAddress { workchain: 0, hash: blake3::derive_key(purpose, host.key.id().as_bytes()) }
}
