//! Jobs: those under way, and counts over all that ended.
//!
//! Owns: a job's facts from submission to its row. Must not: keep a job that is over.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::JobId;
use simnet_host::FailureKind;

use super::{failure_word, tier_word};
use crate::describe::Description;
use crate::histogram::Histogram;
use crate::table::Cell;

/// Job ids are random, so that their first bytes are their hash. Not the standard hasher: it would draw
/// its keys from the simulation's randomness. The map is never iterated in its own order.
#[derive(Default, Debug)]
pub(super) struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
}

pub(super) type Quick = BuildHasherDefault<FirstBytes>;

/// The first eight bytes of something random.
pub(super) fn head(bytes: &[u8; 32]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |head| u64::from_be_bytes(*head))
}

/// What of a job is served and not paid, as stated last. Apart from the rest of the job, and small:
/// it is looked for with every piece of text.
#[derive(Clone, Copy, Debug)]
struct Exposed {
    value: u64,
    /// Whose job it is, if it is an adversary's.
    debtor: Option<u32>,
}

/// A job that has not ended.
#[derive(Clone, Debug)]
pub(super) struct OpenJob {
    pub(super) number: u64,
    pub(super) consumer: u32,
    pub(super) submitted: u64,
    pub(super) model: Option<usize>,
    tier: Tier,
    pub(super) provider: Option<u32>,
    first_token: Option<u64>,
    pub(super) exposed: u64,
    pub(super) hostile_consumer: bool,
    /// Whether it is in the figures: of an honest consumer, and after the warm-up.
    pub(super) counts: bool,
    victim: bool,
    /// Whether an adversary had its prompt at some time.
    met_adversary: bool,
}

/// How a job ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) failure: Option<FailureKind>,
    pub(super) reason: &'static str,
    /// Whether what it was served beyond its vouchers stays unpaid.
    pub(super) unpaid: bool,
    pub(super) prompt: u32,
    pub(super) completion: u32,
    pub(super) cost: u64,
    pub(super) vouchers: u32,
    pub(super) attempts: u32,
    pub(super) after: u64,
}

/// Counts of jobs of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) submitted: u64,
    pub(super) finished: u64,
    pub(super) failed: u64,
}

/// All jobs. Counts and histograms are over those of honest consumers that were submitted after the warm-up.
#[derive(Debug)]
pub(super) struct Jobs {
    open: HashMap<JobId, OpenJob, Quick>,
    /// By the first bytes of jobs that are open.
    exposed: HashMap<u64, Exposed, Quick>,
    next: u64,
    hostile_open: u64,
    pub(super) of_adversaries: u64,
    pub(super) before_warm_up: u64,
    /// Of those that an adversary is after: all, and those of the attested tier or above.
    pub(super) victims: [Counts; 2],
    /// By minimum tier: open, attested, confidential.
    pub(super) tiers: [Counts; 3],
    pub(super) failures: BTreeMap<&'static str, u64>,
    /// Of those of the attested tier or above, and whether an adversary had the prompt.
    pub(super) attested_failures: BTreeMap<(&'static str, bool), u64>,
    pub(super) first_token: Histogram,
    pub(super) duration: Histogram,
    pub(super) cost: Histogram,
    /// NanoTON per million tokens, prompt and completion together.
    pub(super) paid_price: Histogram,
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    pub(super) vouchers: u64,
    pub(super) attempts: u64,
    pub(super) paid_for_failed: u64,
    /// Finished jobs by consumer's region, then by provider's.
    pub(super) flows: Vec<Vec<u64>>,
}

const fn tier_place(tier: Tier) -> usize {
    match tier {
        Tier::Open => 0,
        Tier::Attested => 1,
        Tier::Confidential => 2,
    }
}

impl Jobs {
    pub(super) fn new(regions: usize) -> Self {
        Self {
            open: HashMap::default(),
            exposed: HashMap::default(),
            next: 0,
            hostile_open: 0,
            of_adversaries: 0,
            before_warm_up: 0,
            victims: [Counts::default(); 2],
            tiers: [Counts::default(); 3],
            failures: BTreeMap::new(),
            attested_failures: BTreeMap::new(),
            first_token: Histogram::default(),
            duration: Histogram::default(),
            cost: Histogram::default(),
            paid_price: Histogram::default(),
            prompt_tokens: 0,
            completion_tokens: 0,
            vouchers: 0,
            attempts: 0,
            paid_for_failed: 0,
            flows: vec![vec![0; regions]; regions],
        }
    }

    /// Jobs of honest consumers that have not ended.
    pub(super) fn running(&self) -> u64 {
        u64::try_from(self.open.len()).unwrap_or(u64::MAX).saturating_sub(self.hostile_open)
    }

    pub(super) fn submitted(
        &mut self,
        job: JobId,
        (consumer, hostile): (u32, bool),
        at: u64,
        (model, tier): (Option<usize>, Tier),
        about: &Description,
    ) {
        let warm = at >= super::micros(about.warm_up);
        let open = OpenJob {
            number: self.next,
            consumer,
            submitted: at,
            model,
            tier,
            provider: None,
            first_token: None,
            exposed: 0,
            hostile_consumer: hostile,
            counts: warm && !hostile,
            victim: about.victims.contains(&consumer),
            met_adversary: false,
        };
        self.next += 1;
        if hostile {
            self.of_adversaries += 1;
            self.hostile_open += 1;
        } else if warm {
            self.tiers[tier_place(tier)].submitted += 1;
            self.count_victim(&open, |counts| counts.submitted += 1);
        } else {
            self.before_warm_up += 1;
        }
        self.open.insert(job, open);
    }

    /// Its prompt leaves; true if its user asked for the attested tier or above.
    pub(super) fn prompt_sent(
        &mut self,
        job: &JobId,
        provider: Option<u32>,
        hostile: bool,
    ) -> bool {
        let Some(open) = self.open.get_mut(job) else { return false };
        open.provider = provider;
        open.met_adversary |= hostile;
        open.tier >= Tier::Attested
    }

    fn count_victim(&mut self, open: &OpenJob, count: impl Fn(&mut Counts)) {
        if open.victim {
            let concerned = if open.tier >= Tier::Attested { 2 } else { 1 };
            self.victims.iter_mut().take(concerned).for_each(count);
        }
    }

    /// True if it is the first of an honest consumer's job.
    pub(super) fn first_token(&mut self, job: &JobId, after: u64) -> bool {
        let Some(open) = self.open.get_mut(job) else { return false };
        if open.first_token.is_some() {
            return false;
        }
        open.first_token = Some(after);
        if open.counts {
            self.first_token.record(after);
        }
        !open.hostile_consumer
    }

    /// So much of it is served and not paid; whose it is, if it is an adversary's.
    pub(super) fn exposed(&mut self, job: &JobId, value: u64) -> Option<u32> {
        let head = head(job.as_bytes());
        if let Some(exposed) = self.exposed.get_mut(&head) {
            exposed.value = value;
            return exposed.debtor;
        }
        let open = self.open.get(job)?;
        let debtor = open.hostile_consumer.then_some(open.consumer);
        self.exposed.insert(head, Exposed { value, debtor });
        debtor
    }

    /// Counts a job that ended; `None` if it never was submitted.
    pub(super) fn ended(
        &mut self,
        job: &JobId,
        ended: &Ended,
        about: &Description,
    ) -> Option<OpenJob> {
        let mut open = self.open.remove(job)?;
        open.exposed = self.exposed.remove(&head(job.as_bytes())).map_or(0, |it| it.value);
        if open.hostile_consumer {
            self.hostile_open -= 1;
        }
        if !open.counts {
            return Some(open);
        }
        self.attempts += u64::from(ended.attempts);
        let counts = &mut self.tiers[tier_place(open.tier)];
        if let Some(kind) = ended.failure {
            counts.failed += 1;
            self.count_victim(&open, |counts| counts.failed += 1);
            if open.tier >= Tier::Attested {
                let cause = (failure_word(kind), open.met_adversary);
                *self.attested_failures.entry(cause).or_default() += 1;
            }
            self.paid_for_failed += ended.cost;
            *self.failures.entry(failure_word(kind)).or_default() += 1;
            return Some(open);
        }
        counts.finished += 1;
        self.count_victim(&open, |counts| counts.finished += 1);
        self.duration.record(ended.after);
        self.cost.record(ended.cost);
        let tokens = u64::from(ended.prompt) + u64::from(ended.completion);
        if tokens > 0 {
            let per_million = u128::from(ended.cost) * 1_000_000 / u128::from(tokens);
            self.paid_price.record(u64::try_from(per_million).unwrap_or(u64::MAX));
        }
        self.prompt_tokens += u64::from(ended.prompt);
        self.completion_tokens += u64::from(ended.completion);
        self.vouchers += u64::from(ended.vouchers);
        let region = |host: u32| {
            let host = about.hosts.get(usize::try_from(host).ok()?)?;
            Some(usize::from(host.region))
        };
        if let (Some(from), Some(to)) = (region(open.consumer), open.provider.and_then(region))
            && let Some(flow) = self.flows.get_mut(from).and_then(|it| it.get_mut(to))
        {
            *flow += 1;
        }
        Some(open)
    }

    /// The jobs that have not ended, by number.
    pub(super) fn take_unfinished(&mut self) -> Vec<OpenJob> {
        let exposed = std::mem::take(&mut self.exposed);
        let owing = |(job, open): (JobId, OpenJob)| {
            let exposed = exposed.get(&head(job.as_bytes())).map_or(0, |it| it.value);
            OpenJob { exposed, ..open }
        };
        let mut left: Vec<_> = self.open.drain().map(owing).collect();
        left.sort_unstable_by_key(|it| it.number);
        left
    }
}

/// The row of a job in the table of jobs.
pub(super) fn row<'a>(
    open: &OpenJob,
    ended: Option<&Ended>,
    weight: u64,
    model: &'a str,
) -> [Cell<'a>; 16] {
    let outcome = match ended {
        None => "unfinished",
        Some(ended) if ended.failure.is_some() => "failed",
        Some(_) => "finished",
    };
    [
        open.number.into(),
        weight.into(),
        open.consumer.into(),
        open.submitted.into(),
        model.into(),
        tier_word(open.tier).into(),
        open.provider.into(),
        ended.map_or(0, |it| it.attempts).into(),
        open.first_token.into(),
        ended.map(|it| it.after).into(),
        ended.map_or(0, |it| it.prompt).into(),
        ended.map_or(0, |it| it.completion).into(),
        ended.map_or(0, |it| it.cost).into(),
        ended.map_or(0, |it| it.vouchers).into(),
        outcome.into(),
        ended.map(|it| it.reason).into(),
    ]
}
