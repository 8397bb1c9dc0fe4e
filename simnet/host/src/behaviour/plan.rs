//! What an adversary is: from the scenario's words to a host's parameters and behaviour.
//!
//! Owns: which part of an adversary is a parameter of its host and which is a behaviour.
//! Must not: act.

use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::pricing::Level;
use cocoon_protocol::units::{Millis, Tokens};
use simnet_scenario::quantity::Share;
use simnet_scenario::{Adversary, AdversaryKind, Moment};

use super::{Behaviour, Gouging, Patient, Timed, consumer, provider};
use crate::host::{HostSpec, ProviderSpec};

/// What a dishonest host does at its hooks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// Nothing: all of it is in the host's parameters.
    Nothing,
    /// Provider: refuses a job when it has held it for this long. Goal: jobs of a policy that
    /// prefers short times, and the users behind them.
    FastFail {
        /// From the request to the refusal.
        delay: Duration,
        /// How many of the jobs.
        share: Share,
    },
    /// Provider: takes jobs and the payment for their prompts, and falls silent. Goal: prompts,
    /// their price, and time.
    Silent {
        /// From the request to the silence; what comes before is served.
        delay: Duration,
    },
    /// Provider: runs another model than it offers. In a tier with evidence that shows: the
    /// measurement is of what really runs. Goal: the dear model's price for the cheap one's work.
    CheaperModel,
    /// Provider: redeems no voucher. Goal: to keep the consumer's money locked.
    NeverSettles,
    /// Consumer: pays for so many tokens of a job and for no more. Goal: free completions.
    FreeRider {
        /// Tokens of each job that are paid.
        after: Tokens,
        /// How many of the jobs.
        share: Share,
    },
    /// Consumer: holds each voucher back for as long as it can. Goal: the provider's places, at no
    /// cost.
    Withholder {
        /// How long.
        delay: Duration,
    },
    /// Consumer: pretends to allocate and does not, so that one deposit is promised to all. Goal:
    /// service for money that is not there.
    DoubleSpender {
        /// How many of the allocations.
        share: Share,
    },
}

/// A dishonest host's act, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// What.
    pub act: Act,
    /// It is honest before.
    pub from: Moment,
    /// It is honest from then on.
    pub until: Moment,
}

impl Plan {
    /// From the start of the run to its end.
    pub const fn always(act: Act) -> Self {
        Self { act, from: Moment::START, until: Moment::NEVER }
    }

    /// The act as a behaviour; `None` where there is nothing to do at the hooks.
    pub fn behaviour(&self, host: &Arc<HostSpec>) -> Option<Box<dyn Behaviour>> {
        let inner: Box<dyn Behaviour> = match self.act {
            Act::Nothing => return None,
            Act::FastFail { delay, share } => Box::new(provider::FastFail::new(host, delay, share)),
            Act::Silent { delay } => Box::new(provider::Silent::new(delay)),
            Act::CheaperModel => Box::new(provider::CheaperModel),
            Act::NeverSettles => Box::new(provider::NeverSettles),
            Act::FreeRider { after, share } => {
                Box::new(consumer::FreeRider::new(host, after, share))
            }
            Act::Withholder { delay } => Box::new(consumer::Withholder::new(delay)),
            Act::DoubleSpender { share } => Box::new(consumer::DoubleSpender::new(host, share)),
        };
        let whole = self.from == Moment::START && self.until == Moment::NEVER;
        let Self { from, until, .. } = *self;
        Some(if whole { inner } else { Box::new(Timed { inner, from, until }) })
    }

    /// Makes a host an adversary of the scenario: its prices, speeds and tiers, and its behaviour.
    /// What the overlay does with it (an eclipse's place, a partition, a relay) is its tier's part.
    pub fn dress(host: &mut HostSpec, adversary: &Adversary) {
        host.hostile = true;
        let from = Moment::START.after(adversary.from.duration());
        let until = adversary.until.map_or(Moment::NEVER, |it| Moment::START.after(it.duration()));
        let act = act(adversary);
        host.behaviour = Some(Box::new(Self { act, from, until }));
        if let Some(provider) = &mut host.provider {
            dress_provider(provider, adversary);
        }
        if let (Some(consumer), Act::Withholder { .. }) = (&mut host.consumer, act) {
            consumer.policy = Arc::new(Patient(Arc::clone(&consumer.policy)));
        }
    }
}

fn act(adversary: &Adversary) -> Act {
    let delay = adversary.delay().duration();
    let share = adversary.probability();
    match adversary.kind {
        AdversaryKind::Sybil | AdversaryKind::Eclipse => Act::Silent { delay },
        AdversaryKind::FastFail => Act::FastFail { delay, share },
        AdversaryKind::FreeRider => {
            let after = Tokens::new(adversary.after_tokens.unwrap_or(0));
            Act::FreeRider { after, share }
        }
        AdversaryKind::VoucherWithholder => Act::Withholder { delay },
        AdversaryKind::DoubleSpender => Act::DoubleSpender { share },
        AdversaryKind::Lazy => Act::CheaperModel,
        AdversaryKind::SlowLoris
        | AdversaryKind::Gouger
        | AdversaryKind::Colluders
        | AdversaryKind::ForgedEvidence
        | AdversaryKind::Partition
        | AdversaryKind::RelayDropper => Act::Nothing,
    }
}

fn dress_provider(provider: &mut ProviderSpec, adversary: &Adversary) {
    let factor = adversary.price_factor();
    if let Some(claims) = adversary.claims() {
        provider.genuine = provider.genuine.min(Tier::Open);
        provider.tier = claims;
    }
    match adversary.kind {
        AdversaryKind::Gouger => {
            let review_every = Millis::new(whole(adversary.delay().as_secs_f64() * 1e3).into());
            let most = Level::from_parts(millionths(factor));
            provider.pricing = Arc::new(Gouging { most, review_every });
            return;
        }
        AdversaryKind::Lazy => {
            provider.prefill_per_second *= adversary.speed_factor();
            provider.decode_per_second *= adversary.speed_factor();
        }
        AdversaryKind::SlowLoris => {
            provider.decode_per_second = adversary.speed();
            // However many jobs it holds, each gets its drip.
            provider.contention = 0.0;
        }
        AdversaryKind::Sybil
        | AdversaryKind::Eclipse
        | AdversaryKind::FastFail
        | AdversaryKind::Colluders
        | AdversaryKind::FreeRider
        | AdversaryKind::VoucherWithholder
        | AdversaryKind::DoubleSpender
        | AdversaryKind::ForgedEvidence
        | AdversaryKind::Partition
        | AdversaryKind::RelayDropper => {}
    }
    for offered in &mut provider.models {
        offered.prices = Level::from_parts(millionths(factor)).apply(offered.prices);
    }
}

fn millionths(fraction: f64) -> u32 {
    whole(fraction * 1e6)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and a negative or undefined number becomes zero"
)]
fn whole(number: f64) -> u32 {
    number.round() as u32
}
