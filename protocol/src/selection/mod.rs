//! Which provider gets a job: pure, and explainable from its inputs.
//!
//! Owns: what fits a demand at all, and the port of a policy, which orders what fits.
//! Must not: believe an offer's tier (a session proves it) or remember anything (reputation does).
//!
//! The two are apart so that a policy can be a bad one but never an unsafe one: tier, price cap,
//! network and context are held here, and a policy sees only candidates that pass.

mod balanced;
mod patience;

use std::collections::BTreeSet;
use std::fmt;

pub use balanced::Balanced;
pub use patience::{Patience, Retry};

use crate::attest::Tier;
use crate::channel::funds::Funds;
use crate::flat;
use crate::identity::{JobId, ModelHash, NodeId, TonAddress};
use crate::job::{JobError, ProviderRefusal};
use crate::offer::{Book, Load, ModelOffer, Offer};
use crate::record::Account;
use crate::reputation::{Reputation, Standing};
use crate::units::{NanoTon, PricePerMillion, Prices, Timestamp, Tokens};

/// Completion length that the likely cost is computed for when the limit is larger.
const LIKELY_COMPLETION: Tokens = Tokens::new(256);

/// What a job needs of a provider.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Which weights.
    pub model: ModelHash,
    /// The name that the user gave, for errors.
    pub model_name: String,
    /// The network that the consumer's vault is on.
    pub network: i32,
    /// More tokens than the prompt can have.
    pub prompt_at_most: Tokens,
    /// The completion's limit; `None` leaves it to the context.
    pub max_completion: Option<Tokens>,
    /// The lowest acceptable tier.
    pub minimum_tier: Tier,
    /// The most that the job may cost.
    pub max_cost: Option<NanoTon>,
    /// The most that a million tokens may cost, prompt and completion alike.
    pub max_price: Option<PricePerMillion>,
    /// To whose charge the job is in this node's own books.
    pub account: Account,
}

/// A provider that may get the job, with what it promised.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Who.
    pub provider: NodeId,
    /// Sequence of the offer that the prices are from.
    pub offer_sequence: u64,
    /// The promised prices.
    pub prices: Prices,
    /// Where its settlements go.
    pub payout: TonAddress,
    /// The completion's limit at this provider.
    pub max_completion: Tokens,
    /// The most that the job can cost here.
    pub worst_cost: NanoTon,
    /// Completion tokens that an ordinary job of this demand has.
    pub likely_completion: Tokens,
    /// What an ordinary job of this demand costs here.
    pub likely_cost: NanoTon,
    /// How full the provider says it is.
    pub load: Load,
    /// What its past with this consumer is worth.
    pub standing: Standing,
    /// Whether a channel with it can pay for the job already: another one costs gas and a block.
    pub funded: bool,
    /// The policy's own figure, for explanations; lower is better.
    pub score: f64,
}

/// What a choice is made from. Nothing else may enter it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What the job needs.
    pub demand: &'a Demand,
    /// The offers known.
    pub book: &'a Book,
    /// This consumer's own experience.
    pub reputation: &'a Reputation,
    /// This consumer's vault and channels.
    pub funds: Option<&'a Funds>,
    /// Providers that this job has tried.
    pub avoid: &'a BTreeSet<NodeId>,
    /// The jobs that this consumer has under way with a provider, in the order of providers.
    pub under_way: &'a [(NodeId, JobId)],
    /// How many providers have had this job and were lost with it: the fewer attempts are left, the more
    /// the next one has to be counted on.
    pub lost: u32,
    /// Random, for the choice among equals.
    pub draw: u64,
    /// The time.
    pub now: Timestamp,
}

impl View<'_> {
    /// Jobs that this consumer has under way with a provider.
    pub fn jobs_with(&self, provider: NodeId) -> usize {
        flat::with_first(self.under_way, &provider).len()
    }
}

/// How a consumer chooses among providers that fit, and how long it waits for the chosen one.
///
/// Pure: the same view gives the same order, in a node and in a simulation.
pub trait Policy: fmt::Debug + Send + Sync {
    /// Puts the provider to take first, and the rest in the order of retries. The candidates come
    /// in the order of their ids.
    fn order(&self, candidates: &mut [Candidate], view: &View<'_>);

    /// When to give up on a provider, and whether another is tried.
    fn patience(&self) -> Patience {
        Patience::default()
    }
}

/// What fits the view's demand, in the policy's order; the first is the one to take, the rest are
/// for retries. Never empty.
pub fn rank(policy: &dyn Policy, view: &View<'_>) -> Result<Vec<Candidate>, JobError> {
    let mut candidates = fitting(view)?;
    policy.order(&mut candidates, view);
    Ok(candidates)
}

/// The providers that fit, in the order of their ids; or why there is none.
fn fitting(view: &View<'_>) -> Result<Vec<Candidate>, JobError> {
    let View { demand, book, reputation, funds, avoid, now, .. } = *view;
    let offers: Vec<_> = book
        .offers_for(demand.model)
        .filter(|(offer, _)| offer.expires > now && offer.network == demand.network)
        .filter(|(offer, _)| offer.load != Load::Draining && !avoid.contains(&offer.provider))
        .collect();
    let Some(best_tier) = offers.iter().map(|(offer, _)| offer.tier).max() else {
        return Err(JobError::NoProvider { name: demand.model_name.clone() });
    };
    if best_tier < demand.minimum_tier {
        let asked = demand.minimum_tier;
        return Err(JobError::TierNotAvailable { asked, best: best_tier });
    }
    let offers = within_price(offers, demand.max_price)?;
    let mut fitting = Vec::new();
    let mut widest = Tokens::ZERO;
    for (offer, model) in offers {
        if offer.tier < demand.minimum_tier {
            continue;
        }
        widest = widest.max(model.context);
        if let Some(max_completion) = completion_limit(demand, model) {
            let standing = reputation.standing(offer.provider, demand.model, now);
            if let Some(mut found) = candidate(demand, offer, model, max_completion, standing) {
                let room = funds.map(|funds| funds.headroom(found.provider));
                found.funded = room.is_some_and(|room| room >= found.worst_cost);
                fitting.push(found);
            }
        }
    }
    let Some(cheapest) = fitting.iter().map(|candidate| candidate.worst_cost).min() else {
        let prompt = demand.prompt_at_most;
        return Err(JobError::Refused(ProviderRefusal::ContextExceeded {
            prompt,
            context: widest,
        }));
    };
    if let Some(cap) = demand.max_cost {
        fitting.retain(|candidate| candidate.worst_cost <= cap);
        if fitting.is_empty() {
            return Err(JobError::PriceTooHigh { cheapest, cap });
        }
    }
    Ok(fitting)
}

/// The offers whose prices are both within the cap; or why there is none.
fn within_price<'a>(
    mut offers: Vec<(&'a Offer, &'a ModelOffer)>,
    cap: Option<PricePerMillion>,
) -> Result<Vec<(&'a Offer, &'a ModelOffer)>, JobError> {
    let Some(cap) = cap else {
        return Ok(offers);
    };
    let dearest = |model: &ModelOffer| model.prices.prompt.max(model.prices.completion);
    let cheapest = offers.iter().map(|(_, model)| dearest(model)).min();
    offers.retain(|(_, model)| dearest(model) <= cap);
    match cheapest {
        Some(cheapest) if offers.is_empty() => Err(JobError::PriceAboveCap { cheapest, cap }),
        Some(_) | None => Ok(offers),
    }
}

/// The completion's limit at this provider; `None` when not even one token fits for certain to be
/// too small. The bound on the prompt is loose, so only an explicit limit is held against it.
fn completion_limit(demand: &Demand, model: &ModelOffer) -> Option<Tokens> {
    let limit = demand.max_completion.unwrap_or_else(|| {
        let half = model.context.get().checked_div(2).unwrap_or(0);
        Tokens::new(half.clamp(1, 4_096))
    });
    (limit <= model.context).then_some(limit)
}

fn candidate(
    demand: &Demand,
    offer: &Offer,
    model: &ModelOffer,
    max_completion: Tokens,
    standing: Standing,
) -> Option<Candidate> {
    let prompt_at_most = demand.prompt_at_most.min(model.context);
    let worst_cost = model.prices.cost(prompt_at_most, max_completion)?;
    let likely_completion = LIKELY_COMPLETION.min(max_completion);
    // Text has about four bytes a token; the bound counts one.
    let likely_prompt = Tokens::new(prompt_at_most.get().checked_div(4).unwrap_or(0));
    let likely_cost = model.prices.cost(likely_prompt, likely_completion)?;
    Some(Candidate {
        provider: offer.provider,
        offer_sequence: offer.sequence,
        prices: model.prices,
        payout: offer.payout,
        max_completion,
        worst_cost,
        likely_completion,
        likely_cost,
        load: offer.load,
        standing,
        funded: false,
        score: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{NodeKey, TonAddress};
    use crate::reputation::Experience;
    use crate::units::{Millis, PricePerMillion};

    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);
    const MODEL: ModelHash = ModelHash::from_bytes([9; 32]);

    struct Spec {
        seed: u8,
        tier: Tier,
        price: u64,
        load: Load,
        context: u32,
    }

    const PLAIN: Spec =
        Spec { seed: 1, tier: Tier::Attested, price: 100_000_000, load: Load::Idle, context: 8192 };

    fn id(seed: u8) -> NodeId {
        NodeKey::from_secret(&[seed; 32]).id()
    }

    fn book(specs: &[Spec]) -> Book {
        let mut book = Book::default();
        for spec in specs {
            let key = NodeKey::from_secret(&[spec.seed; 32]);
            let price = PricePerMillion::from_nano(spec.price);
            let offer = Offer {
                provider: key.id(),
                sequence: 1,
                issued: NOW,
                expires: NOW.after(Millis::from_secs(300)),
                network: -7_337,
                models: vec![ModelOffer {
                    model: MODEL,
                    name: "m".into(),
                    quantisation: "Q4_1".into(),
                    context: Tokens::new(spec.context),
                    prices: Prices { prompt: price, completion: price },
                }],
                tier: spec.tier,
                evidence_digest: None,
                payout: TonAddress { workchain: 0, hash: [5; 32] },
                load: spec.load,
                region: String::new(),
                engine: String::new(),
            };
            book.insert(std::sync::Arc::new(offer.sign(&key).verify(NOW).unwrap()));
        }
        book
    }

    fn demand() -> Demand {
        Demand {
            model: MODEL,
            model_name: "m".into(),
            network: -7_337,
            prompt_at_most: Tokens::new(400),
            max_completion: Some(Tokens::new(100)),
            minimum_tier: Tier::Attested,
            max_cost: None,
            max_price: None,
            account: Account::default(),
        }
    }

    fn ranked(demand: &Demand, specs: &[Spec]) -> Result<Vec<NodeId>, JobError> {
        ranked_with(demand, &book(specs), &Reputation::default(), &BTreeSet::new(), 0)
    }

    fn ranked_with(
        demand: &Demand,
        book: &Book,
        reputation: &Reputation,
        avoid: &BTreeSet<NodeId>,
        draw: u64,
    ) -> Result<Vec<NodeId>, JobError> {
        ranked_after(0, (demand, book, reputation), avoid, draw)
    }

    fn ranked_after(
        lost: u32,
        (demand, book, reputation): (&Demand, &Book, &Reputation),
        avoid: &BTreeSet<NodeId>,
        draw: u64,
    ) -> Result<Vec<NodeId>, JobError> {
        let (funds, under_way, now) = (None, &[][..], NOW);
        let view = View { demand, book, reputation, funds, avoid, under_way, lost, draw, now };
        let ranked = rank(&Balanced, &view)?;
        Ok(ranked.into_iter().map(|candidate| candidate.provider).collect())
    }

    #[test]
    fn the_cheaper_of_two_alike_leads() {
        let specs = [Spec { seed: 1, price: 900_000_000, ..PLAIN }, Spec { seed: 2, ..PLAIN }];
        assert_eq!(ranked(&demand(), &specs), Ok(vec![id(2), id(1)]));
    }

    #[test]
    fn a_low_tier_never_gets_the_job_however_cheap() {
        let specs =
            [Spec { seed: 1, tier: Tier::Open, price: 0, ..PLAIN }, Spec { seed: 2, ..PLAIN }];
        assert_eq!(ranked(&demand(), &specs), Ok(vec![id(2)]));
        assert_eq!(
            ranked(&demand(), &specs[..1]),
            Err(JobError::TierNotAvailable { asked: Tier::Attested, best: Tier::Open })
        );
    }

    #[test]
    fn refusals_name_their_cause() {
        assert_eq!(ranked(&demand(), &[]), Err(JobError::NoProvider { name: "m".into() }));
        let capped = Demand { max_cost: Some(NanoTon::from_nano(1)), ..demand() };
        assert_eq!(
            ranked(&capped, &[PLAIN]),
            Err(JobError::PriceTooHigh {
                cheapest: NanoTon::from_nano(50_000),
                cap: NanoTon::from_nano(1)
            })
        );
        let long = Demand { max_completion: Some(Tokens::new(10_000)), ..demand() };
        assert!(matches!(
            ranked(&long, &[PLAIN]),
            Err(JobError::Refused(ProviderRefusal::ContextExceeded { .. }))
        ));
        let elsewhere = Demand { network: -239, ..demand() };
        assert!(matches!(ranked(&elsewhere, &[PLAIN]), Err(JobError::NoProvider { .. })));
    }

    #[test]
    fn draining_and_tried_providers_are_left_out() {
        let specs = [Spec { seed: 1, load: Load::Draining, ..PLAIN }, Spec { seed: 2, ..PLAIN }];
        assert_eq!(ranked(&demand(), &specs), Ok(vec![id(2)]));
        let avoid = BTreeSet::from([id(2)]);
        let none = ranked_with(&demand(), &book(&specs), &Reputation::default(), &avoid, 0);
        assert!(matches!(none, Err(JobError::NoProvider { .. })));
    }

    #[test]
    fn a_fast_failure_does_not_attract_jobs() {
        let specs = [Spec { seed: 1, ..PLAIN }, Spec { seed: 2, ..PLAIN }];
        let mut reputation = Reputation::default();
        for _ in 0..3 {
            reputation.record(id(1), MODEL, Experience::Failed, Millis::new(1), NOW);
        }
        for draw in 0..64 {
            let none = BTreeSet::new();
            let ranked = ranked_with(&demand(), &book(&specs), &reputation, &none, draw).unwrap();
            assert_eq!(ranked[0], id(2));
        }
    }

    #[test]
    fn who_has_lost_a_provider_pays_for_one_that_can_be_counted_on() {
        let specs = [
            Spec { seed: 1, price: 500_000_000, ..PLAIN },
            Spec { seed: 2, price: 1_000_000_000, ..PLAIN },
        ];
        let (book, none) = (book(&specs), BTreeSet::new());
        let mut reputation = Reputation::default();
        let served = Experience::Served {
            first_token: Millis::new(300),
            streaming: Millis::new(2_000),
            completion: Tokens::new(100),
        };
        for experience in [served, served, served, served, Experience::Failed] {
            reputation.record(id(1), MODEL, experience, Millis::new(2_300), NOW);
            reputation.record(id(2), MODEL, served, Millis::new(2_300), NOW);
        }
        let after = |lost| {
            let known = (&demand(), &book, &reputation);
            ranked_after(lost, known, &none, 0).unwrap()[0]
        };
        assert_eq!([after(0), after(2)], [id(1), id(2)], "half the price, four jobs of five");
    }

    #[test]
    fn equal_providers_share_the_load() {
        let specs = [Spec { seed: 1, ..PLAIN }, Spec { seed: 2, ..PLAIN }];
        let led: BTreeSet<_> = (0..64_u64)
            .map(|draw| {
                let draw = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let book = book(&specs);
                let none = BTreeSet::new();
                ranked_with(&demand(), &book, &Reputation::default(), &none, draw).unwrap()[0]
            })
            .collect();
        assert_eq!(led.len(), 2);
    }
}
