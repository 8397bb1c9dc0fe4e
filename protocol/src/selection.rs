//! Which provider gets a job: pure, and explainable from its inputs.
//!
//! Owns: the filters, the score, and the order of candidates.
//! Must not: believe an offer's tier (a session proves it) or remember anything (reputation does).

use std::collections::BTreeSet;

use crate::attest::Tier;
use crate::identity::{ModelHash, NodeId};
use crate::job::{JobError, ProviderRefusal};
use crate::offer::{Book, Load, ModelOffer, Offer};
use crate::reputation::{Reputation, Standing};
use crate::units::{NanoTon, Prices, Timestamp, Tokens};

/// What a second of waiting is worth, in nanoTON: 0.00001 TON. With it, a provider that answers a
/// second sooner may cost as much as 100 tokens at 0.1 TON per million more.
const NANO_TON_PER_SECOND: f64 = 10_000.0;
/// Completion length that the expected cost is computed for when the limit is larger.
const LIKELY_COMPLETION: Tokens = Tokens::new(256);
/// Candidates within this factor of the best score are as good as the best: the draw decides
/// between them, so that equal providers share the load.
const AS_GOOD: f64 = 1.25;
/// A busy provider counts as this many times slower to start.
const BUSY_FACTOR: f64 = 3.0;

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
    pub payout: crate::identity::TonAddress,
    /// The completion's limit at this provider.
    pub max_completion: Tokens,
    /// The most that the job can cost here.
    pub worst_cost: NanoTon,
    /// Lower is better; in nanoTON.
    pub score: f64,
}

/// Ranks the book's offers for a demand; the first is the one to take, the rest are for retries.
/// `avoid` holds providers that this job has tried; `draw` is random.
pub fn rank(
    demand: &Demand,
    book: &Book,
    reputation: &Reputation,
    avoid: &BTreeSet<NodeId>,
    draw: u64,
    now: Timestamp,
) -> Result<Vec<Candidate>, JobError> {
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
    let mut fitting = Vec::new();
    let mut widest = Tokens::ZERO;
    for (offer, model) in offers {
        if offer.tier < demand.minimum_tier {
            continue;
        }
        widest = widest.max(model.context);
        if let Some(max_completion) = completion_limit(demand, model) {
            let standing = reputation.standing(offer.provider, demand.model, now);
            if let Some(found) = candidate(demand, offer, model, max_completion, standing) {
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
    Ok(order(fitting, draw))
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
    let likely = LIKELY_COMPLETION.min(max_completion);
    // Text has about four bytes a token; the bound counts one.
    let likely_prompt = Tokens::new(prompt_at_most.get().checked_div(4).unwrap_or(0));
    let likely_cost = model.prices.cost(likely_prompt, likely)?;
    let slowdown = match offer.load {
        Load::Idle => 1.0,
        Load::Busy => BUSY_FACTOR,
        Load::Full | Load::Draining => BUSY_FACTOR * BUSY_FACTOR,
    };
    let seconds = (standing.first_token_ms * slowdown
        + standing.per_token_ms * f64::from(likely.get()))
        / 1_000.0;
    let score = (nano(likely_cost) + seconds * NANO_TON_PER_SECOND) / standing.success;
    Some(Candidate {
        provider: offer.provider,
        offer_sequence: offer.sequence,
        prices: model.prices,
        payout: offer.payout,
        max_completion,
        worst_cost,
        score,
    })
}

/// Amounts above 2^53 nanoTON (9 million TON) lose precision, which only blurs the order.
fn nano(amount: NanoTon) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a score, not an amount")]
    let value = amount.as_nano() as f64;
    value
}

/// Best first; among those as good as the best, the better of two drawn ones leads.
fn order(mut candidates: Vec<Candidate>, draw: u64) -> Vec<Candidate> {
    candidates.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.provider.cmp(&b.provider)));
    let bound = candidates.first().map_or(0.0, |best| best.score * AS_GOOD);
    let equals = candidates.iter().take_while(|candidate| candidate.score <= bound).count();
    let pick = |draw: u64| {
        let equals = u64::try_from(equals).unwrap_or(1).max(1);
        usize::try_from(draw.checked_rem(equals).unwrap_or(0)).unwrap_or(0)
    };
    let leader = pick(draw).min(pick(draw >> 32));
    if leader > 0 && leader < candidates.len() {
        let led = candidates.remove(leader);
        candidates.insert(0, led);
    }
    candidates
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
            };
            book.insert(offer.sign(&key).verify(NOW).unwrap());
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
        }
    }

    fn ranked(demand: &Demand, specs: &[Spec]) -> Result<Vec<NodeId>, JobError> {
        let ranked = rank(demand, &book(specs), &Reputation::default(), &BTreeSet::new(), 0, NOW)?;
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
        let none = rank(&demand(), &book(&specs), &Reputation::default(), &avoid, 0, NOW);
        assert!(matches!(none, Err(JobError::NoProvider { .. })));
    }

    #[test]
    fn a_fast_failure_does_not_attract_jobs() {
        let specs = [Spec { seed: 1, ..PLAIN }, Spec { seed: 2, ..PLAIN }];
        let mut reputation = Reputation::default();
        for _ in 0..3 {
            reputation.record(id(1), MODEL, Experience::Failed, NOW);
        }
        for draw in 0..64 {
            let ranked =
                rank(&demand(), &book(&specs), &reputation, &BTreeSet::new(), draw, NOW).unwrap();
            assert_eq!(ranked[0].provider, id(2));
        }
    }

    #[test]
    fn equal_providers_share_the_load() {
        let specs = [Spec { seed: 1, ..PLAIN }, Spec { seed: 2, ..PLAIN }];
        let led: BTreeSet<_> = (0..64_u64)
            .map(|draw| {
                let draw = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let book = book(&specs);
                let none = BTreeSet::new();
                rank(&demand(), &book, &Reputation::default(), &none, draw, NOW).unwrap()[0]
                    .provider
            })
            .collect();
        assert_eq!(led.len(), 2);
    }
}
