//! What an adversary test counts: jobs, prompts, tokens and money of each side.
//!
//! Owns: how a figure follows from facts and ledger. Must not: judge it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::identity::{JobId, TonAddress};
use cocoon_protocol::selection;
use cocoon_protocol::units::{NanoTon, Tokens};
use simnet_host::behaviour::{Act, Plan};
use simnet_host::{HostSpec, Observation, Order, Stimulus, policy};

use crate::world::{World, consumer, provider};

/// A provider with its own payout and so many times the usual price, in percent.
pub(crate) fn provider_at(id: u32, price_percent: u32) -> HostSpec {
    let mut spec = provider(id);
    let parts = spec.provider.as_mut().unwrap();
    parts.payout = TonAddress { workchain: 0, hash: [u8::try_from(id).unwrap(); 32] };
    let level = cocoon_protocol::pricing::Level::from_parts(price_percent * 10_000);
    for offered in &mut parts.models {
        offered.prices = level.apply(offered.prices);
    }
    parts.settle_threshold = NanoTon::from_nano(1);
    spec
}

/// The same host, dishonest.
pub(crate) fn dishonest(mut spec: HostSpec, act: Act) -> HostSpec {
    spec.hostile = true;
    spec.behaviour = Some(Box::new(Plan::always(act)));
    spec
}

/// A consumer that chooses by the policy of this name.
pub(crate) fn consumer_by(id: u32, name: &str) -> HostSpec {
    let mut spec = consumer(id);
    let policy: Arc<dyn selection::Policy> =
        policy::selection(name, &BTreeMap::new(), id.into()).unwrap();
    spec.consumer.as_mut().unwrap().policy = policy;
    spec
}

/// Submits a job of its own number and draw.
pub(crate) fn ask(world: &mut World, consumer: usize, number: u8) -> JobId {
    let draw = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let order = Order { draw, ..World::order(number) };
    let job = order.job;
    world.give(consumer, Stimulus::Submit(Box::new(order)));
    job
}

/// Submits so many jobs, one every so often, and lets all end.
pub(crate) fn ask_many(world: &mut World, consumer: usize, jobs: u8, every: Duration) {
    for number in 1..=jobs {
        ask(world, consumer, number);
        world.run_for(every);
    }
    assert!(world.finish(), "every job ends");
}

/// Jobs that ended with their whole answer, of one consumer or of all.
pub(crate) fn served(world: &World) -> usize {
    let finished = |fact: &Observation| match fact {
        Observation::JobFinished { completion, .. } => *completion == crate::world::COMPLETION,
        _ => false,
    };
    world.facts.iter().filter(|(_, _, fact)| finished(fact)).count()
}

/// Prompts that went to adversaries.
pub(crate) fn prompts_to_hostile(world: &World) -> usize {
    let hostile =
        |fact: &Observation| matches!(fact, Observation::PromptSent { hostile, .. } if *hostile);
    world.facts.iter().filter(|(_, _, fact)| hostile(fact)).count()
}

/// What was served and is not paid, by job: its tokens and their price as last stated.
pub(crate) fn unpaid(world: &World) -> BTreeMap<JobId, (Tokens, NanoTon)> {
    let mut unpaid = BTreeMap::new();
    for (_, _, fact) in &world.facts {
        if let Observation::Exposed { job, unpaid: tokens, value, .. } = fact {
            unpaid.insert(*job, (*tokens, *value));
        }
    }
    unpaid
}

/// The longest time from a job's submission to its first token.
pub(crate) fn slowest_first_token(world: &World) -> Duration {
    let first = world.facts.iter().filter_map(|(_, _, fact)| match fact {
        Observation::FirstToken { after, .. } => Some(*after),
        _ => None,
    });
    first.max().unwrap_or_default()
}

/// What reached a provider's wallet.
pub(crate) fn income(world: &World, host: usize) -> NanoTon {
    world.ledger.income(world.hosts[host].spec().provider.as_ref().unwrap().payout)
}

/// Everything in a consumer's vault that is set aside and not paid out.
pub(crate) fn locked(world: &World, host: usize) -> NanoTon {
    let vault = world.ledger.vault_of(world.hosts[host].spec());
    let all = vault.map(|vault| {
        let parts = vault.allocations().map(|(_, it)| it.limit.saturating_sub(it.paid));
        parts.fold(NanoTon::ZERO, NanoTon::saturating_add)
    });
    all.unwrap_or_default()
}
