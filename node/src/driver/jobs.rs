//! The gateway's port to this node: names become hashes, requests become submissions.
//!
//! Owns: what a request needs that only this node knows: its catalogue, its caps, its network.
//! Must not: choose a provider; the protocol does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cocoon_gateway::{Health, JobRequest, JobStream, Jobs, ModelListing, model_hash_in};
use cocoon_protocol::attest::{Policy, Tier};
use cocoon_protocol::identity::{JobId, ModelHash, Network, NodeId};
use cocoon_protocol::job::{JobError, JobSpec};
use cocoon_protocol::record::Account;
use cocoon_protocol::selection::Demand;
use cocoon_protocol::units::{NanoTon, PricePerMillion, Tokens};
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::api_keys;
use crate::budget::Budget;
use crate::clock::Clock;

use super::event::{DriverHandle, Event, Submission};
use crate::net::swarm::NetHandle;

/// Events that wait for a job's reader. When it is full the job waits, and with it its payment.
const JOB_EVENTS: usize = 32;

/// What a consumer's operator decides about jobs.
#[derive(Clone, Debug)]
pub(crate) struct JobDefaults {
    /// The network that the vault is on.
    pub(crate) network: Network,
    /// The lowest tier, unless a request asks for another.
    pub(crate) minimum_tier: Tier,
    /// The attestation policy that sessions are judged by.
    pub(crate) policy: Policy,
    /// The most that a request may cost; a request can only lower it.
    pub(crate) max_cost: NanoTon,
    /// The most that a million tokens may cost.
    pub(crate) max_price: Option<PricePerMillion>,
}

/// The node as the gateway sees it.
#[derive(Debug)]
pub(crate) struct NodeJobs {
    /// Who this node is.
    pub(crate) node: NodeId,
    /// The way to the driver.
    pub(crate) driver: DriverHandle,
    /// The way to the network, for its health.
    pub(crate) net: NetHandle,
    /// Names of models, by this node's own catalogue.
    pub(crate) names: Arc<BTreeMap<String, ModelHash>>,
    /// The operator's decisions.
    pub(crate) defaults: JobDefaults,
    /// What may be spent.
    pub(crate) budget: Arc<Budget>,
    /// The time, for the day that a job counts to.
    pub(crate) clock: Arc<dyn Clock>,
}

impl NodeJobs {
    fn resolve(&self, model: &str) -> Result<ModelHash, JobError> {
        let unknown = || JobError::UnknownModel { name: model.to_owned() };
        match model_hash_in(model) {
            Ok(Some(hash)) => Ok(hash),
            Ok(None) => self.names.get(model).copied().ok_or_else(unknown),
            Err(_) => Err(unknown()),
        }
    }

    /// What a session must prove to serve the request: providers are chosen by that, for whoever
    /// offers less would be dialled only to be refused.
    fn demanded(&self, request: &JobRequest) -> Tier {
        let asked = request.minimum_tier.unwrap_or(self.defaults.minimum_tier);
        self.defaults.policy.demanded(asked)
    }

    /// Sets aside what the request may cost, and runs it.
    async fn start(&self, request: JobRequest) -> Result<JobStream, JobError> {
        let model = self.resolve(&request.model)?;
        let asked = self.demanded(&request);
        if asked == Tier::Confidential && !self.defaults.policy.lists_gpus() {
            // Every provider would be refused, and remembered as one that proves nothing.
            return Err(JobError::PolicyForbidsTier { asked });
        }
        let job = JobId::from_bytes(random()?);
        let account = request.caller.as_ref().map(api_keys::account).unwrap_or_default();
        let cap = self.defaults.max_cost;
        let wanted = request.max_cost.map_or(cap, |asked| asked.min(cap));
        let wanted = self.budget.for_request(account, wanted);
        let granted = self.budget.reserve(job, account, wanted, self.clock.now())?;
        let held = Held { budget: &self.budget, job: Some(job) };
        let started = self.run(request, (job, model), (account, granted), held).await;
        started.map_err(|error| {
            let capped = granted < wanted && matches!(error, JobError::PriceTooHigh { .. });
            let reason = capped.then(|| self.budget.refusal(account, self.clock.now())).flatten();
            reason.unwrap_or(error)
        })
    }

    async fn run(
        &self,
        request: JobRequest,
        (job, model): (JobId, ModelHash),
        (account, max_cost): (Account, NanoTon),
        mut held: Held<'_>,
    ) -> Result<JobStream, JobError> {
        let (salt, minimum_tier) = (random()?, self.demanded(&request));
        let demand = Demand {
            model,
            model_name: request.model,
            network: self.defaults.network.global_id(),
            prompt_at_most: request.prompt.tokens_at_most(),
            max_completion: request.max_completion,
            minimum_tier,
            max_cost: Some(max_cost),
            max_price: self.defaults.max_price,
            account,
        };
        let spec = JobSpec {
            model,
            prompt: request.prompt,
            sampling: request.sampling,
            stop: request.stop,
            // Set when a provider and with it the context is chosen.
            max_completion: request.max_completion.unwrap_or(Tokens::new(1)),
        };
        let (started, answer) = oneshot::channel();
        let (events, received) = mpsc::channel(JOB_EVENTS);
        let gone = CancellationToken::new();
        // Whoever drops this future before the answer cancels the job.
        let abandoned = gone.clone().drop_guard();
        let submission = Submission {
            job,
            spec,
            salt,
            demand,
            draw: u64::from_be_bytes(random()?),
            started,
            events,
            gone: gone.clone(),
        };
        if !self.driver.send(Event::Submit(Box::new(submission))).await {
            return Err(JobError::ShuttingDown);
        }
        // From here on the driver says when it is over.
        held.job = None;
        let accepted = answer.await.unwrap_or(Err(JobError::ShuttingDown))?;
        abandoned.disarm();
        Ok(JobStream::new(accepted, received, gone))
    }
}

/// Money that was set aside for a job which the driver does not know yet: free again when the job
/// does not get that far, also because whoever asked has gone.
struct Held<'a> {
    budget: &'a Budget,
    job: Option<JobId>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            self.budget.over(job);
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], JobError> {
    let mut random = [0; N];
    // Without randomness there is no job id and no salt; the node cannot work.
    getrandom::fill(&mut random).map_err(|_| JobError::ShuttingDown)?;
    Ok(random)
}

impl Jobs for NodeJobs {
    fn models(&self) -> BoxFuture<'_, Vec<ModelListing>> {
        Box::pin(async {
            let offers = self.driver.inspect().await.unwrap_or_default().offers;
            let mut listings: BTreeMap<ModelHash, ModelListing> = BTreeMap::new();
            let empty = |name: Option<String>, hash| ModelListing {
                name,
                hash,
                offers: 0,
                cheapest: None,
                tiers: BTreeSet::new(),
                context: None,
            };
            for (name, hash) in self.names.iter() {
                listings.insert(*hash, empty(Some(name.clone()), *hash));
            }
            for offer in &offers {
                for model in &offer.models {
                    let entry = listings.entry(model.model);
                    let listing = entry.or_insert_with(|| empty(None, model.model));
                    listing.offers = listing.offers.saturating_add(1);
                    listing.tiers.insert(offer.tier);
                    listing.context = listing.context.max(Some(model.context));
                    let cheaper = listing
                        .cheapest
                        .is_none_or(|known| model.prices.completion < known.completion);
                    if cheaper {
                        listing.cheapest = Some(model.prices);
                    }
                }
            }
            listings.into_values().collect()
        })
    }

    fn submit(&self, request: JobRequest) -> BoxFuture<'_, Result<JobStream, JobError>> {
        Box::pin(self.start(request))
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(async {
            let view = self.driver.inspect().await;
            let peers = self.net.status().await.map_or(0, |status| status.peers);
            let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            let problem = match &view {
                None => Some("the node is shutting down".to_owned()),
                Some(_) if peers == 0 => {
                    Some("no peer is connected; check `entry_points`".to_owned())
                }
                Some(_) => None,
            };
            let view = view.unwrap_or_default();
            Health {
                node: self.node,
                problem,
                peers: count(peers),
                offers: count(view.offers.len()),
                jobs: count(view.consuming),
            }
        })
    }
}
