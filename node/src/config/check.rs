//! Settings that must agree with one another.
//!
//! Owns: the rules between settings. Must not: repeat what a setting's own type refuses.

use cocoon_protocol::identity::Network;
use cocoon_protocol::limits;
use cocoon_protocol::units::{NanoTon, Prices};

use super::Config;
use super::choice::{AttesterChoice, EngineChoice, GpuAttesterChoice, LedgerChoice, WalletAddress};

/// Two settings that do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The gateway would be open to the network without a key.
    #[error("`gateway_listen` is beyond loopback and `api_key` is not set")]
    OpenGateway,
    /// A provider that runs llama.cpp has nothing to load.
    #[error("`provide` is on and `model` is not set")]
    NoModel,
    /// An allocation cannot be taken from a smaller vault.
    #[error("`allocation` is larger than `vault_deposit` less the vault's own reserve")]
    AllocationAboveDeposit,
    /// Real or test coins on a chain that nobody else sees.
    #[error("the embedded ledger is for a devnet only")]
    EmbeddedBeyondDevnet,
    /// There is no ledger here to serve.
    #[error(
        "`ledger_listen` and `ledger_liteserver_listen` serve the embedded ledger, and `ledger` \
         names another one"
    )]
    NothingToServe,
    /// Nobody to ask.
    #[error("`ledger = \"liteservers\"`, and neither `ton_config` nor `liteservers` names one")]
    NoLiteservers,
    /// Named, and not asked.
    #[error("`ton_config` or `liteservers` is set, and `ledger` is not \"liteservers\"")]
    UnusedLiteservers,
    /// Simulated evidence was not built in.
    #[error("a simulated `attester` or `gpu_attester` needs a build with the feature `dev-tee`")]
    SimulatedNotBuilt,
    /// Simulated evidence where real money is.
    #[error("a simulated `attester` or `gpu_attester` is refused on mainnet")]
    SimulatedOnMainnet,
    /// GPUs by name, and no TEE that would give their evidence a meaning.
    #[error("`gpu_attester` asks for GPUs, and `attester = \"open\"` for no TEE beside them")]
    GpusWithoutTee,
    /// Real money would be withdrawn to an address of the test network.
    #[error("`owner` is an address for the test network only")]
    TestOnlyOwner,
    /// Prices cannot move within bounds that they are outside of.
    #[error("`completion_price` is not between `price_minimum` and `price_maximum`")]
    PriceOutsideBounds,
    /// Not even one step of the default length can be paid.
    #[error(
        "`max_cost` or `allocation` does not cover one step of {} tokens at our own prices",
        limits::CREDIT_STEP
    )]
    CannotPayOneStep,
}

impl Conflict {
    /// What to do about it.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::OpenGateway => "set `COCOON_API_KEY`, or listen on 127.0.0.1",
            Self::NoModel => {
                "`cocoon-node models add FILE` makes a model known; then give `--model NAME`"
            }
            Self::AllocationAboveDeposit => "raise `--vault-deposit` or lower `--allocation`",
            Self::EmbeddedBeyondDevnet => {
                "give `--ton-config FILE` and no `--ledger`, or `--network devnet`"
            }
            Self::NothingToServe => "drop `--ledger`, or what serves it",
            Self::NoLiteservers => {
                "download ton.org/global-config.json (or testnet-global.config.json) and give \
                 `--ton-config FILE`"
            }
            Self::UnusedLiteservers => "give `--ledger liteservers`",
            Self::SimulatedNotBuilt => {
                "build with `--features dev-tee`, or use `--attester auto --gpu-attester auto`"
            }
            Self::SimulatedOnMainnet => "use `--attester auto --gpu-attester auto`",
            Self::GpusWithoutTee => "use `--gpu-attester auto`, or let `--attester` have a TEE",
            Self::TestOnlyOwner => "copy the address from a wallet on the main network",
            Self::PriceOutsideBounds => {
                "the price is where prices begin: set the bounds around `--completion-price`"
            }
            Self::CannotPayOneStep => "raise `--max-cost` and `--allocation`",
        }
    }
}

impl Config {
    /// Checks the rules between settings; the first that is broken.
    pub(super) fn check(&self) -> Result<(), Conflict> {
        let rules = [
            (self.open_gateway(), Conflict::OpenGateway),
            (self.without_model(), Conflict::NoModel),
            (self.allocation > self.largest_allocation(), Conflict::AllocationAboveDeposit),
            (
                self.ledger == LedgerChoice::Embedded && self.network != Network::Devnet,
                Conflict::EmbeddedBeyondDevnet,
            ),
            (
                self.ledger != LedgerChoice::Embedded && self.serves_ledger(),
                Conflict::NothingToServe,
            ),
            (
                self.ledger == LedgerChoice::Liteservers && !self.names_liteservers(),
                Conflict::NoLiteservers,
            ),
            (
                self.ledger != LedgerChoice::Liteservers && self.names_liteservers(),
                Conflict::UnusedLiteservers,
            ),
            (self.simulated() && self.network == Network::Mainnet, Conflict::SimulatedOnMainnet),
            (self.simulated() && !cfg!(feature = "dev-tee"), Conflict::SimulatedNotBuilt),
            (self.gpus_without_tee(), Conflict::GpusWithoutTee),
            (
                self.network == Network::Mainnet
                    && self.owner.is_some_and(WalletAddress::is_test_only),
                Conflict::TestOnlyOwner,
            ),
            (self.price_outside_bounds(), Conflict::PriceOutsideBounds),
            (self.consume && self.step_cost() > self.max_cost, Conflict::CannotPayOneStep),
            (self.consume && self.step_cost() > self.allocation, Conflict::CannotPayOneStep),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, conflict)) => Err(conflict),
            None => Ok(()),
        }
    }

    const fn serves_ledger(&self) -> bool {
        self.ledger_listen.is_some() || self.ledger_liteserver_listen.is_some()
    }

    fn names_liteservers(&self) -> bool {
        self.ton_config.is_some() || !self.liteservers.is_empty()
    }

    fn open_gateway(&self) -> bool {
        self.consume
            && !self.gateway_listen.ip().is_loopback()
            && self.api_key.is_none()
            && self.api_keys.is_none()
    }

    fn price_outside_bounds(&self) -> bool {
        let price = self.completion_price;
        self.price_minimum.is_some_and(|least| price < least)
            || self.price_maximum.is_some_and(|most| price > most)
    }

    fn without_model(&self) -> bool {
        self.provide && self.engine == EngineChoice::Llama && self.model.is_none()
    }

    fn simulated(&self) -> bool {
        let gpus = self.gpu_attester == GpuAttesterChoice::Simulated;
        (self.provide || self.consume) && (self.attester.is_simulated() || gpus)
    }

    fn gpus_without_tee(&self) -> bool {
        let by_name =
            matches!(self.gpu_attester, GpuAttesterChoice::Nvidia | GpuAttesterChoice::Simulated);
        self.provide && by_name && self.attester == AttesterChoice::Open
    }

    fn largest_allocation(&self) -> NanoTon {
        self.vault_deposit.saturating_sub(limits::VAULT_RESERVE)
    }

    /// What one step of credit costs at this node's own prices, as a measure of a useful amount.
    fn step_cost(&self) -> NanoTon {
        let prices = Prices { prompt: self.prompt_price, completion: self.completion_price };
        prices.cost(limits::CREDIT_STEP, limits::CREDIT_STEP).unwrap_or(NanoTon::MAX)
    }
}
