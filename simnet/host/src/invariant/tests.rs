//! Each invariant by hand-made facts: where it holds, and where it does not.
//!
//! Owns: one case for each way to break one. Must not: run a host; the planted bugs do.

use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::{JobId, ModelHash, NodeId, TonAddress};
use cocoon_protocol::job::FinishReason;
use cocoon_protocol::limits;
use cocoon_protocol::units::{NanoTon, Tokens};

use super::*;
use crate::ledger::Books;
use crate::observation::{FailureKind, Queue};

const CONSUMER: HostId = HostId(1);
const PROVIDER: HostId = HostId(2);
const VAULT: TonAddress = TonAddress { workchain: 0, hash: [7; 32] };

fn nano(nano: u64) -> NanoTon {
    NanoTon::from_nano(nano)
}

fn channel(epoch: u32) -> ChannelId {
    ChannelId { vault: VAULT, provider: NodeId::from_bytes([2; 32]), epoch }
}

fn promised(amount: u64) -> Observation {
    Observation::Promised { channel: channel(1), cumulative: nano(amount) }
}

fn held(amount: u64) -> Observation {
    Observation::Held { channel: channel(1), cumulative: nano(amount) }
}

fn submitted(number: u8) -> Observation {
    let (job, model) = (JobId::from_bytes([number; 32]), ModelHash::from_bytes([9; 32]));
    Observation::JobSubmitted { job, model, minimum_tier: Tier::Open }
}

fn failed(number: u8, kind: FailureKind) -> Observation {
    let job = JobId::from_bytes([number; 32]);
    Observation::JobFailed { job, kind, attempts: 1, after: Duration::ZERO, paid: NanoTon::ZERO }
}

fn finished(number: u8) -> Observation {
    Observation::JobFinished {
        job: JobId::from_bytes([number; 32]),
        provider: NodeId::from_bytes([2; 32]),
        reason: FinishReason::Stop,
        prompt: Tokens::ZERO,
        completion: Tokens::ZERO,
        cost: NanoTon::ZERO,
        vouchers: 1,
        attempts: 1,
        after: Duration::ZERO,
    }
}

fn settled(promised: u64, before: u64, paid: u64, limit: u64) -> LedgerFact {
    LedgerFact::Settled {
        channel: channel(1),
        promised: nano(promised),
        before: nano(before),
        paid: nano(paid),
        limit: nano(limit),
        arrived: nano(paid - before),
    }
}

struct Watch {
    invariants: Invariants,
    at: Moment,
}

impl Watch {
    fn new(bounds: Bounds) -> Self {
        Self { invariants: Invariants::new(bounds), at: Moment::START }
    }

    fn tell(mut self, host: HostId, facts: &[Observation]) -> Self {
        for fact in facts {
            self.at = self.at.after(Duration::from_secs(1));
            self.invariants.observe(self.at, host, fact);
        }
        self
    }

    fn block(mut self, facts: &[LedgerFact]) -> Self {
        let books = Books::default();
        self.invariants.block(self.at, &BlockReport { height: 1, books, facts });
        self
    }

    fn later(mut self, seconds: u64) -> Self {
        self.at = self.at.after(Duration::from_secs(seconds));
        self
    }

    #[track_caller]
    fn holds(self) -> Self {
        assert_eq!(self.invariants.violation(), None);
        assert!(!self.invariants.is_over());
        self
    }

    #[track_caller]
    fn breaks(&self, name: &str) {
        let broken = self.invariants.violation().map(|violation| violation.invariant);
        assert_eq!(broken, Some(name));
        assert!(NAMES.contains(&name));
        assert!(self.invariants.is_over());
    }
}

fn watch() -> Watch {
    Watch::new(Bounds::default())
}

#[test]
fn promises_grow_also_over_a_crash() {
    let restart = [Observation::Crashed, promised(20), Observation::Started { restart: true }];
    let told = watch().tell(CONSUMER, &[promised(10), promised(20)]);
    told.tell(CONSUMER, &restart).tell(CONSUMER, &[promised(21)]).holds();
    watch().tell(CONSUMER, &[promised(20), promised(19)]).breaks(vouchers::NAME);
    let again = [Observation::Crashed, promised(19)];
    watch().tell(CONSUMER, &[promised(20)]).tell(CONSUMER, &again).breaks(vouchers::NAME);
}

#[test]
fn a_record_that_is_gone_after_a_crash_is_missed() {
    let restart = [Observation::Crashed, Observation::Started { restart: true }];
    watch().tell(CONSUMER, &[promised(20)]).tell(CONSUMER, &restart).breaks(vouchers::NAME);
    let paid = watch().tell(CONSUMER, &[promised(20)]).tell(PROVIDER, &[held(20)]).holds();
    paid.tell(PROVIDER, &restart).breaks(vouchers::NAME);
    // One that had nothing has lost nothing.
    watch().tell(PROVIDER, &restart).holds();
}

#[test]
fn nobody_holds_more_than_was_promised_but_by_a_hostile_payer() {
    watch().tell(CONSUMER, &[promised(20)]).tell(PROVIDER, &[held(21)]).breaks(vouchers::NAME);
    let bounds = Bounds { hostile: [CONSUMER].into(), ..Bounds::default() };
    let opened = LedgerFact::Opened { host: CONSUMER, vault: VAULT, deposit: nano(1) };
    let told = Watch::new(bounds).block(&[opened]).tell(PROVIDER, &[held(21)]).holds();
    told.tell(PROVIDER, &[held(20)]).breaks(vouchers::NAME);
}

#[test]
fn a_settlement_is_covered_and_happens_once() {
    let told = || watch().tell(CONSUMER, &[promised(60)]);
    let once = [settled(50, 0, 50, 100), settled(60, 50, 60, 100)];
    told().block(&once).holds();
    let twice = [settled(50, 0, 50, 100), settled(50, 0, 50, 100)];
    told().block(&twice).breaks(settlements::NAME);
    told().block(&[settled(50, 0, 51, 100)]).breaks(settlements::NAME);
    told().block(&[settled(50, 0, 50, 49)]).breaks(settlements::NAME);
    told().block(&[settled(61, 0, 61, 100)]).breaks(settlements::NAME);
    let seen = Observation::Settled { channel: channel(1), paid: nano(61) };
    told().block(&once).tell(PROVIDER, &[seen]).breaks(settlements::NAME);
}

#[test]
fn what_a_reorganisation_took_back_may_be_paid_again() {
    let settled = settled(50, 0, 50, 100);
    let undone = LedgerFact::Undone(Box::new(settled.clone()));
    let told = watch().tell(CONSUMER, &[promised(60)]);
    told.block(&[settled.clone(), undone, settled]).holds();
}

#[test]
fn only_the_rest_of_an_allocation_comes_back() {
    let allocated = LedgerFact::Allocated { channel: channel(1), limit: nano(100) };
    let released = |amount| LedgerFact::Released { channel: channel(1), returned: nano(amount) };
    let told = || {
        let told = watch().tell(CONSUMER, &[promised(60)]);
        told.block(&[allocated.clone(), settled(60, 0, 60, 100)])
    };
    told().block(&[released(40)]).holds();
    told().block(&[released(41)]).breaks(settlements::NAME);
}

#[test]
fn books_that_do_not_balance_break_at_the_block() {
    let mut watch = watch();
    let books = Books { minted: 10, vaults: 4, wallets: 5, fees: 1 };
    watch.invariants.block(watch.at, &BlockReport { height: 1, books, facts: &[] });
    assert_eq!(watch.invariants.violation(), None);
    let books = Books { fees: 2, ..books };
    watch.invariants.block(watch.at, &BlockReport { height: 1, books, facts: &[] });
    watch.breaks(money::NAME);
}

#[test]
fn a_job_is_a_step_ahead_at_most_and_a_consumer_some() {
    let step = 100;
    let exposed = |unpaid: u32, owes: u64, credited: u64| Observation::Exposed {
        job: JobId::from_bytes([1; 32]),
        unpaid: Tokens::new(unpaid),
        value: nano(step),
        peer_owes: nano(owes),
        step: nano(step),
        credited: nano(credited),
    };
    let most = limits::CREDIT_STEP.get();
    watch().tell(PROVIDER, &[exposed(most, step, 0)]).holds();
    watch().tell(PROVIDER, &[exposed(most + 1, step, 0)]).breaks(exposure::NAME);
    let tolerated = step * (u64::from(limits::DEBT_STEPS) + 1);
    watch().tell(PROVIDER, &[exposed(1, tolerated, 0)]).holds();
    watch().tell(PROVIDER, &[exposed(1, tolerated + 1, 0)]).breaks(exposure::NAME);
    // Who has paid much may owe more.
    watch().tell(PROVIDER, &[exposed(1, tolerated + 1, step * 32 * 16)]).holds();
    let bounds = Bounds { hostile: [PROVIDER].into(), ..Bounds::default() };
    Watch::new(bounds).tell(PROVIDER, &[exposed(most + 1, step, 0)]).holds();
}

#[test]
fn a_prompt_goes_to_a_tier_that_is_high_enough() {
    let sent = |asked, genuine| Observation::PromptSent {
        job: JobId::from_bytes([1; 32]),
        provider: NodeId::from_bytes([2; 32]),
        asked,
        genuine,
        hostile: false,
    };
    let fine = [sent(Tier::Open, Tier::Open), sent(Tier::Attested, Tier::Confidential)];
    watch().tell(CONSUMER, &fine).holds();
    watch().tell(CONSUMER, &[sent(Tier::Attested, Tier::Open)]).breaks(tiers::NAME);
}

#[test]
fn jobs_end_and_end_once() {
    watch().tell(CONSUMER, &[submitted(1), submitted(2), finished(2), finished(1)]).holds();
    let failed_too = failed(1, FailureKind::Crashed);
    watch().tell(CONSUMER, &[submitted(1), finished(1), failed_too]).breaks(jobs::NAME);
    watch().tell(CONSUMER, &[finished(1)]).breaks(jobs::NAME);
    watch().tell(CONSUMER, &[submitted(1), submitted(1)]).breaks(jobs::NAME);
}

#[test]
fn a_job_that_nobody_works_on_is_found_at_once() {
    for (waiting, held, attended) in [(1, 0, true), (0, 1, true), (2, 2, false)] {
        let adrift = Observation::JobsAdrift { waiting, held, attended };
        watch().tell(CONSUMER, &[submitted(1), adrift]).breaks(jobs::NAME);
    }
}

#[test]
fn a_job_that_never_ends_is_found_by_its_age() {
    let bounds = Bounds { oldest_job: Duration::from_secs(100), ..Bounds::default() };
    let told = Watch::new(bounds).tell(CONSUMER, &[submitted(1), finished(1), submitted(2)]);
    let told = told.later(99).tell(CONSUMER, &[submitted(3)]).holds();
    told.later(1).tell(CONSUMER, &[finished(3)]).breaks(jobs::NAME);
}

#[test]
fn a_queue_is_full_at_its_bound() {
    let queued = |depth| Observation::Queued { queue: Queue::Inbox, depth, bound: 3 };
    watch().tell(PROVIDER, &[queued(3)]).holds();
    watch().tell(PROVIDER, &[queued(4)]).breaks(queues::NAME);
}

#[test]
fn after_healing_whoever_asks_is_served_in_time() {
    let (at, within) = (Moment::from_millis(10_000), Duration::from_secs(60));
    let bounds = Bounds { healing: Some(Healing { at, within }), ..Bounds::default() };
    let told = || Watch::new(bounds.clone()).later(20);
    let judge = |mut watch: Watch| {
        watch.invariants.finish(watch.at, false, &Ledger::default());
        watch
    };
    let lost = failed(1, FailureKind::Unreachable);
    let poor = failed(1, FailureKind::FundsExhausted);
    let served = [submitted(1), lost.clone(), submitted(2), finished(2)];
    judge(told().tell(CONSUMER, &served).later(100)).holds();
    let unserved = [submitted(1), lost.clone()];
    judge(told().tell(CONSUMER, &unserved).later(100)).breaks(liveness::NAME);
    // Too late; too early to say; no money; and while faults lasted.
    let late = told().tell(CONSUMER, &[submitted(1), submitted(2)]).later(100);
    judge(late.tell(CONSUMER, &[finished(2)])).breaks(liveness::NAME);
    judge(told().tell(CONSUMER, &unserved).later(10)).holds();
    judge(told().tell(CONSUMER, &[submitted(1), poor]).later(100)).holds();
    judge(Watch::new(bounds.clone()).tell(CONSUMER, &unserved).later(100)).holds();
}

#[test]
fn the_first_violation_is_kept_and_all_are_counted() {
    let fault = Observation::Defect { rule: "a rule" };
    let told = watch().tell(CONSUMER, &[promised(20), fault.clone(), promised(19), fault]);
    let first = told.invariants.violation().unwrap();
    assert_eq!((first.invariant, first.host), (DEFECT, Some(CONSUMER)));
    assert_eq!(first.at, Moment::from_millis(2_000));
    assert_eq!(first.facts.len(), 2, "what came before, and the fact itself");
    let counts: Vec<_> =
        told.invariants.counts().iter().map(|(name, often)| (*name, *often)).collect();
    assert_eq!(counts, [(DEFECT, 2), (vouchers::NAME, 1)]);
}
