//! What an operator asks of a running node through the control socket.
//!
//! Owns: the answers. Must not: hold state; the driver, the ledger and the store have it.

use cocoon_attest::Appraiser;
use cocoon_protocol::Input;
use cocoon_protocol::attest::{Tier, Trust};
use cocoon_protocol::identity::{NodeId, ReceiptHash};
use cocoon_protocol::job::RunningJob;
use cocoon_protocol::record::StoredReceipt;
use cocoon_protocol::units::{NanoTon, PricePerMillion, Timestamp};
use futures::future::BoxFuture;

use crate::config::Config;
use crate::control::{
    AdvisoryStatus, Answer, ChannelRole, ChannelStatus, ControlHandler, JobStatus, MoneyRequest,
    OfferStatus, PolicyStatus, PricingStatus, ReceiptFile, Refusal, Request, SessionStatus,
    Settlement, Status, WalletStatus,
};
use crate::driver::ledger_desk::chain;
use crate::driver::view::{ChannelLine, View};
use crate::receipts::Prover;
use crate::shutdown::Tasks;
use crate::start::Running;
use crate::store::{Store, Table};

/// How long a settlement that an operator asked for may take.
const SETTLE_WITHIN: std::time::Duration = std::time::Duration::from_secs(45);
/// Proofs that one answer holds: under 2 MB.
const EXPORTED: usize = 500;
/// Receipts read at a time; a list is cut to what was asked for.
const RECEIPTS: usize = 4_096;

/// Answers for one node.
#[derive(Debug)]
pub(crate) struct Operator {
    /// The settings.
    pub(crate) config: Config,
    /// Who the node is.
    pub(crate) node: NodeId,
    /// When it started.
    pub(crate) started: Timestamp,
    /// Its tasks, for shutting down.
    pub(crate) tasks: Tasks,
    /// Its store, for receipts.
    pub(crate) store: Store,
    /// Its parts.
    pub(crate) running: Running,
}

impl ControlHandler for Operator {
    fn handle(&self, request: Request) -> BoxFuture<'_, Result<Answer, Refusal>> {
        Box::pin(self.answer(request))
    }
}

fn failed(error: &dyn std::error::Error) -> Refusal {
    Refusal::Failed { reason: chain(error) }
}

impl Operator {
    async fn answer(&self, request: Request) -> Result<Answer, Refusal> {
        match request {
            Request::Status => Ok(Answer::Status(Box::new(self.status().await?))),
            Request::ChannelList => Ok(Answer::Channels(channels(&self.view().await?))),
            Request::ChannelSettle => self.settle().await,
            Request::ChannelRelease { peer } => self.release(peer).await,
            Request::ReceiptList { limit } => self.receipts(limit),
            Request::ReceiptShow { receipt } => self.receipt(receipt),
            Request::ReceiptProve { receipt } => self.prove(receipt).await,
            Request::ReceiptExport { after } => {
                let mut prover = Prover::new(&self.store, self.running.ledger.ledger.as_ref());
                Ok(Answer::Proofs(prover.page(after, EXPORTED).await?))
            }
            Request::Accounts(query) => {
                let name = |account| self.running.budget.name(account).map(str::to_owned);
                let lines = crate::report::report(&self.store, &query, name);
                Ok(Answer::Accounts(lines.map_err(|error| failed(&error))?))
            }
            Request::WalletShow => self.wallet().await,
            Request::WalletFund { amount } => self.fund(amount).await,
            Request::Money(request) => self.money(request).await,
            Request::Shutdown => {
                self.tasks.request_shutdown();
                Ok(Answer::Accepted)
            }
        }
    }

    async fn view(&self) -> Result<View, Refusal> {
        let gone = || Refusal::NotPossible { reason: "the node is shutting down".to_owned() };
        self.running.driver.inspect().await.ok_or_else(gone)
    }

    async fn status(&self) -> Result<Status, Refusal> {
        let config = &self.config;
        let view = self.view().await?;
        let net = self.running.net.status().await.map_err(|error| failed(&error))?;
        let peer_id = cocoon_overlay::address::peer_id(&self.node);
        let address = |address: &cocoon_overlay::Multiaddr| match &peer_id {
            Some(peer_id) => format!("{address}/p2p/{peer_id}"),
            None => address.to_string(),
        };
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node,
            process: std::process::id(),
            network: config.network,
            provides: config.provide,
            consumes: config.consume,
            started: self.started,
            draining: self.tasks.draining().is_cancelled(),
            addresses: net.listeners.iter().map(address).collect(),
            gateway: config.consume.then(|| config.gateway_listen.to_string()),
            offered_tier: view.offered_tier,
            simulated_tee: self.running.simulated,
            minimum_tier: config.consume.then_some(config.minimum_tier),
            policy: self.running.appraiser.as_deref().map(policy),
            ledger: config.ledger.to_string(),
            ledger_listen: config.ledger_listen.map(|address| address.to_string()),
            peers: net.peers,
            sessions: sessions(&view),
            offers: offers(&view),
            channels: channels(&view),
            jobs: jobs(&view),
            pricing: self.pricing(&view),
        })
    }

    fn pricing(&self, view: &View) -> Option<PricingStatus> {
        let Config { completion_price: own, price_minimum, price_maximum, .. } = &self.config;
        let moves = price_minimum.is_some() || price_maximum.is_some();
        let level_per_million = view.price_level.filter(|_| moves)?;
        let bound =
            |bound: &Option<PricePerMillion>| NanoTon::from_nano(bound.unwrap_or(*own).as_nano());
        let (minimum, maximum) = (bound(price_minimum), bound(price_maximum));
        Some(PricingStatus { level_per_million, minimum, maximum })
    }

    async fn settle(&self) -> Result<Answer, Refusal> {
        let before = self.view().await?.payees;
        if before.is_empty() {
            return Err(Refusal::NotFound { what: "channel that pays this node".to_owned() });
        }
        self.running.driver.send(Input::SettleNow).await;
        let deadline = tokio::time::Instant::now() + SETTLE_WITHIN;
        loop {
            let View { payees: after, settling, .. } = self.view().await?;
            if settling == 0 || tokio::time::Instant::now() > deadline {
                return Ok(Answer::Settlements(settlements(&before, &after)));
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    async fn release(&self, peer: NodeId) -> Result<Answer, Refusal> {
        let deposit = self.running.desk.deposit().ok_or_else(|| Refusal::NotPossible {
            reason: "only a consumer can release an allocation".to_owned(),
        })?;
        let view = self.view().await?;
        if !view.payers.iter().any(|line| line.provider == peer) {
            return Err(Refusal::NotFound { what: format!("channel with {peer}") });
        }
        let vault = deposit.view().await.map_err(|error| failed(&error))?;
        let asked = vault.and_then(|vault| {
            let unlock_at = vault.allocation(&peer)?.unlock_at?;
            Some((unlock_at, vault.as_of))
        });
        let released = match asked {
            None => deposit.request_release(peer).await,
            Some((unlock_at, now)) if unlock_at <= now => deposit.finalize_release(peer).await,
            Some((unlock_at, now)) => {
                let seconds = unlock_at.since(now).get().div_ceil(1_000);
                let reason = format!("the provider may still settle; ask again in {seconds} s");
                return Err(Refusal::NotPossible { reason });
            }
        };
        let free = released.map_err(|error| failed(&error))?.free();
        self.running.driver.send(Input::Released { provider: peer, free }).await;
        Ok(Answer::Channels(channels(&self.view().await?)))
    }

    fn receipts(&self, limit: u32) -> Result<Answer, Refusal> {
        let entries = self.store.scan(Table::Receipt, None, RECEIPTS);
        let entries = entries.map_err(|error| failed(&error))?;
        let mut receipts = Vec::new();
        for (_, value) in entries {
            let stored = StoredReceipt::decode(&value).map_err(|error| failed(&error))?;
            if let Ok(verified) = stored.receipt.verify() {
                receipts.push((verified.receipt().ended, stored));
            }
        }
        receipts.sort_by_key(|(ended, _)| std::cmp::Reverse(*ended));
        receipts.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Answer::Receipts(receipts.into_iter().map(|(_, stored)| file(&stored)).collect()))
    }

    fn receipt(&self, receipt: ReceiptHash) -> Result<Answer, Refusal> {
        Ok(Answer::Receipt(file(&self.stored(receipt)?)))
    }

    fn stored(&self, receipt: ReceiptHash) -> Result<StoredReceipt, Refusal> {
        let stored = self.store.read(Table::Receipt, receipt.as_bytes());
        let stored = stored.map_err(|error| failed(&error))?;
        let unknown = || Refusal::NotFound { what: format!("receipt {receipt}") };
        let stored = StoredReceipt::decode(&stored.ok_or_else(unknown)?);
        stored.map_err(|error| failed(&error))
    }

    async fn prove(&self, receipt: ReceiptHash) -> Result<Answer, Refusal> {
        let stored = self.stored(receipt)?;
        let mut prover = Prover::new(&self.store, self.running.ledger.ledger.as_ref());
        let (file, standing) = prover.prove(&stored).await?;
        Ok(Answer::Proof { file: Box::new(file), standing })
    }

    async fn money(&self, request: MoneyRequest) -> Result<Answer, Refusal> {
        let teller = self.running.teller.as_ref().ok_or_else(|| Refusal::NotPossible {
            reason: "a bare peer has no wallet".to_owned(),
        })?;
        Box::pin(teller.answer(request)).await.map(Answer::Money)
    }

    async fn wallet(&self) -> Result<Answer, Refusal> {
        let purse = self.running.purse.as_ref().ok_or_else(|| Refusal::NotPossible {
            reason: "a bare peer has no wallet".to_owned(),
        })?;
        let address = purse.wallet.address();
        let account = self.running.ledger.ledger.account(address).await;
        let vault = match self.running.desk.deposit() {
            Some(deposit) => deposit.view().await.ok().flatten(),
            None => None,
        };
        Ok(Answer::Wallet(WalletStatus {
            network: self.config.network,
            address,
            balance: account.ok().map(|account| account.balance),
            vault: vault.as_ref().map(|view| view.address),
            vault_balance: vault.map(|view| view.balance),
        }))
    }

    async fn fund(&self, amount: NanoTon) -> Result<Answer, Refusal> {
        if self.config.network != cocoon_protocol::identity::Network::Devnet {
            let reason =
                "only a devnet has a faucet; send coins to the wallet's address".to_owned();
            return Err(Refusal::NotPossible { reason });
        }
        let Some(purse) = self.running.purse.clone() else { return self.wallet().await };
        let funded = self.running.ledger.fund(purse.wallet.address(), amount).await;
        funded.map_err(|error| failed(&error))?;
        self.wallet().await
    }
}

fn file(stored: &StoredReceipt) -> ReceiptFile {
    ReceiptFile {
        receipt: stored.receipt.hash(),
        signed: hex::encode(stored.receipt.encode()),
        salt: Some(hex::encode(stored.salt)),
        provided: Some(stored.provided),
    }
}

/// What a consumer accepts, and whose advisories narrow it.
fn policy(appraiser: &Appraiser) -> PolicyStatus {
    let policy = appraiser.policy();
    let trust = policy.trust();
    let followed = appraiser.followed();
    let advisories = followed.followed().iter().map(|(subscription, list)| AdvisoryStatus {
        maintainer: subscription.maintainer,
        required: subscription.required,
        version: list.as_ref().map(|list| list.version),
        expires: list.as_ref().map(|list| list.expires),
    });
    PolicyStatus {
        id: policy.id().to_string(),
        trust,
        accepts_simulated: trust == Trust::Dev && cfg!(feature = "dev-tee"),
        advisories: advisories.collect(),
    }
}

fn sessions(view: &View) -> Vec<SessionStatus> {
    let line = |(node, tier, simulated): &(NodeId, Tier, bool)| SessionStatus {
        node: *node,
        tier: *tier,
        simulated: *simulated,
    };
    view.sessions.iter().map(line).collect()
}

fn jobs(view: &View) -> Vec<JobStatus> {
    let line = |(provided, job): &(bool, RunningJob)| JobStatus {
        job: job.job,
        peer: job.peer,
        provided: *provided,
        model: job.model,
        completion: job.completion,
        cost: job.cost,
    };
    view.jobs.iter().map(line).collect()
}

fn offers(view: &View) -> Vec<OfferStatus> {
    let own = view.own_offer.iter().map(|offer| (true, offer));
    let lines = own.chain(view.offers.iter().map(|offer| (false, offer)));
    let lines = lines.flat_map(|(own, offer)| {
        offer.models.iter().map(move |model| OfferStatus {
            provider: offer.provider,
            own,
            name: model.name.clone(),
            model: model.model,
            tier: offer.tier,
            prompt_price: NanoTon::from_nano(model.prices.prompt.as_nano()),
            completion_price: NanoTon::from_nano(model.prices.completion.as_nano()),
            context: model.context,
            expires: offer.expires,
        })
    });
    lines.collect()
}

fn channels(view: &View) -> Vec<ChannelStatus> {
    let line = |role: ChannelRole, line: &ChannelLine| ChannelStatus {
        peer: (role == ChannelRole::Payer).then_some(line.provider),
        role,
        vault: line.vault,
        epoch: line.epoch,
        limit: line.limit,
        promised: line.promised,
        settled: line.settled.unwrap_or(NanoTon::ZERO),
    };
    let payers = view.payers.iter().map(|it| line(ChannelRole::Payer, it));
    let payees = view.payees.iter().map(|it| line(ChannelRole::Payee, it));
    payers.chain(payees).collect()
}

fn settlements(before: &[ChannelLine], after: &[ChannelLine]) -> Vec<Settlement> {
    let lines = after.iter().filter_map(|line| {
        let earlier = before.iter().find(|it| it.vault == line.vault && it.epoch == line.epoch);
        let settled = line.settled?;
        let amount = settled.saturating_sub(earlier.and_then(|it| it.settled)?);
        Some(Settlement { vault: line.vault, amount, settled })
    });
    lines.collect()
}
