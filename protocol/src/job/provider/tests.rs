//! The provider's machine against consumers that do what they should not.
//!
//! Owns: a provider with a session, a channel and an engine that answers by hand.
//! Must not: repeat whole jobs; `tests/pair` runs those.

mod offers;

use super::*;
use crate::channel::{Allocation, HolderClaim, JobTotal, VaultKey};
use crate::identity::ModelHash;
use crate::input::VaultSnapshot;
use crate::output::LedgerCommand;
use crate::units::PricePerMillion;

const MODEL: ModelHash = ModelHash::from_bytes([9; 32]);
const VAULT: TonAddress = TonAddress { workchain: 0, hash: [0xaa; 32] };
const PAYOUT: TonAddress = TonAddress { workchain: 0, hash: [0xbb; 32] };
const PROMPT: Tokens = Tokens::new(10);
const START: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

fn nano(nano: u64) -> NanoTon {
    NanoTon::from_nano(nano)
}

fn vault_key() -> VaultKey {
    VaultKey::from_secret(&[3; 32])
}

fn consumer() -> NodeId {
    NodeKey::from_secret(&[1; 32]).id()
}

fn job(number: u8) -> JobId {
    JobId::from_bytes([number; 32])
}

fn config() -> ProviderConfig {
    ProviderConfig {
        key: NodeKey::from_secret(&[2; 32]),
        network: -7_337,
        models: vec![ModelOffer {
            model: MODEL,
            name: "m".into(),
            quantisation: "Q4_1".into(),
            context: Tokens::new(8_192),
            // One nanoTON a token, both ways.
            prices: Prices {
                prompt: PricePerMillion::from_nano(1_000_000),
                completion: PricePerMillion::from_nano(1_000_000),
            },
        }],
        tier: Tier::Open,
        evidence_digest: None,
        payout: PAYOUT,
        region: String::new(),
        engine: "test".to_owned(),
        settle_threshold: nano(1_000_000),
        watch_every: Millis::from_secs(60),
    }
}

const PROVED: Proved =
    Proved { tier: Tier::Open, simulated: false, evidence_digest: [0; 32], manifest: None };

/// What came out of the machine since it was last asked.
#[derive(Default)]
struct Seen {
    refusals: Vec<ProviderRefusal>,
    views: Vec<Option<(u32, NanoTon)>>,
    trusted: usize,
    closed: usize,
    reads: usize,
    settled: Vec<NanoTon>,
    granted: Vec<Tokens>,
    cancelled: Vec<FinishReason>,
    forgotten: usize,
    published: usize,
}

struct World {
    provider: Provider,
    offer: u64,
    now: Timestamp,
    stored: BTreeMap<Vec<u8>, PayeeState>,
    seen: Seen,
}

impl World {
    fn new() -> Self {
        let provider = Provider::new(config(), Vec::new());
        let (offer, seen) = (0, Seen::default());
        let mut world = Self { provider, offer, now: START, stored: BTreeMap::new(), seen };
        world.act(|it, now, out| it.handle_timeout(now, out));
        world.offer = *world.provider.offers.last_key_value().unwrap().0;
        world
    }

    /// A world whose consumer has a channel with this limit.
    fn with_channel(limit: u64) -> Self {
        let mut world = Self::new();
        world.greet(consumer());
        world.ledger_shows(Some(Allocation::new(PAYOUT, nano(limit), 1)));
        assert_eq!(world.take().trusted, 1);
        world
    }

    fn act(&mut self, act: impl FnOnce(&mut Provider, Timestamp, &mut Output)) {
        let mut out = Output::default();
        act(&mut self.provider, self.now, &mut out);
        for record in out.persist {
            if let Record::Payee(state) = &record {
                self.stored.insert(record.key(), state.clone());
            }
        }
        for effect in out.effects {
            self.note(effect);
        }
    }

    fn note(&mut self, effect: Effect) {
        let seen = &mut self.seen;
        match effect {
            Effect::Send { message: SessionMessage::JobRefused { refusal, .. }, .. } => {
                seen.refusals.push(refusal);
            }
            Effect::Send { message: SessionMessage::ChannelState { allocation, .. }, .. } => {
                seen.views.push(allocation);
            }
            Effect::TrustVault { .. } => seen.trusted += 1,
            Effect::CloseSession { .. } => seen.closed += 1,
            Effect::Ledger(LedgerCommand::ReadVault { .. }) => seen.reads += 1,
            Effect::Ledger(LedgerCommand::Settle { voucher }) => {
                seen.settled.push(voucher.voucher.cumulative);
            }
            Effect::Engine(EngineCommand::Grant { total, .. }) => seen.granted.push(total),
            Effect::Engine(EngineCommand::Cancel { reason, .. }) => seen.cancelled.push(reason),
            Effect::Engine(EngineCommand::Forget { .. }) => seen.forgotten += 1,
            Effect::Publish(_) => seen.published += 1,
            Effect::Look { .. }
            | Effect::Avoid { .. }
            | Effect::OpenSession { .. }
            | Effect::Send { .. }
            | Effect::SendJob { .. }
            | Effect::Halt { .. }
            | Effect::Inform { .. }
            | Effect::Ledger(_)
            | Effect::Engine(_) => {}
        }
    }

    fn take(&mut self) -> Seen {
        std::mem::take(&mut self.seen)
    }

    fn proof(peer: NodeId) -> [u8; 64] {
        let provider = config().key.id();
        HolderClaim { vault: VAULT, provider, consumer: peer }.prove(&vault_key())
    }

    fn greet(&mut self, peer: NodeId) {
        self.act(|it, now, out| {
            it.session_accepted(peer, PROVED, out);
            it.channel_hello(peer, VAULT, Self::proof(peer), now, out);
        });
    }

    fn ledger_shows(&mut self, allocation: Option<Allocation>) {
        let snapshot = VaultSnapshot { key: vault_key().public(), allocation };
        self.act(|it, _, out| it.vault_read(VAULT, Ok(Some(snapshot)), out));
    }

    fn request(&mut self, number: u8) {
        let request = RequestedJob {
            job: job(number),
            model: MODEL,
            offer_sequence: self.offer,
            max_completion: Tokens::new(200),
            prompt_commitment: [1; 32],
            sampling_digest: [2; 32],
            salt: [7; 32],
        };
        self.act(|it, now, out| it.requested(consumer(), request, now, out));
    }

    fn start(&mut self, number: u8) {
        self.request(number);
        self.act(|it, now, out| it.engine_started(consumer(), job(number), PROMPT, now, out));
    }

    fn pay(&mut self, number: u8, total: u64, cumulative: u64, epoch: u32) {
        let channel = ChannelId { vault: VAULT, provider: config().key.id(), epoch };
        let voucher = vault_key().sign(channel.voucher(nano(cumulative), [0; 32]));
        let voucher = voucher.verify(&vault_key().public()).unwrap();
        let total = Some(JobTotal { job: job(number), total: nano(total) });
        self.act(|it, now, out| it.paid(consumer(), total, &voucher, now, out));
    }

    fn generate(&mut self, number: u8, completion: u32) {
        let completion = Tokens::new(completion);
        self.act(|it, now, _| {
            it.generated(consumer(), job(number), completion, now);
        });
    }

    fn finish(&mut self, number: u8, completion: u32, reason: FinishReason) {
        let usage = Usage { prompt: PROMPT, completion: Tokens::new(completion) };
        self.act(|it, now, out| {
            it.engine_finished(consumer(), job(number), (reason, usage, [5; 32]), now, out);
        });
    }

    fn tick(&mut self, by: Millis) {
        self.now = self.now.after(by);
        self.act(|it, now, out| it.handle_timeout(now, out));
    }
}

#[test]
fn a_stranger_cannot_use_a_vault_that_is_not_its_own() {
    let mut world = World::with_channel(1_000);
    let stranger = NodeKey::from_secret(&[6; 32]).id();
    // It replays the holder's own proof, which is not for it.
    world.act(|it, now, out| {
        it.session_accepted(stranger, PROVED, out);
        it.channel_hello(stranger, VAULT, World::proof(consumer()), now, out);
    });
    world.ledger_shows(Some(Allocation::new(PAYOUT, nano(1_000), 1)));
    let seen = world.take();
    assert_eq!((seen.views, seen.trusted), (vec![None], 0), "it learns nothing");
    let request = RequestedJob {
        job: job(1),
        model: MODEL,
        offer_sequence: world.offer,
        max_completion: Tokens::new(1),
        prompt_commitment: [1; 32],
        sampling_digest: [2; 32],
        salt: [7; 32],
    };
    world.act(|it, now, out| it.requested(stranger, request, now, out));
    assert!(matches!(world.take().refusals[..], [ProviderRefusal::NoHeadroom { .. }]));
}

#[test]
fn offers_end_models_are_known_and_ids_are_used_once() {
    let mut world = World::with_channel(1_000);
    let current = world.offer;
    world.offer = current - 1;
    world.request(1);
    world.offer = current;
    let unknown = RequestedJob {
        job: job(1),
        model: ModelHash::from_bytes([8; 32]),
        offer_sequence: current,
        max_completion: Tokens::new(1),
        prompt_commitment: [1; 32],
        sampling_digest: [2; 32],
        salt: [7; 32],
    };
    world.act(|it, now, out| it.requested(consumer(), unknown, now, out));
    let refusals = world.take().refusals;
    assert_eq!(refusals, [ProviderRefusal::StaleOffer, ProviderRefusal::UnknownModel]);
    world.start(1);
    world.request(1);
    let seen = world.take();
    assert_eq!((seen.closed, seen.refusals.len(), seen.forgotten), (1, 0, 0), "the first job runs");
    assert_eq!(world.provider.jobs(), 1);
}

#[test]
fn an_old_offer_is_honoured_as_long_as_it_lives() {
    let mut world = World::with_channel(1_000);
    world.tick(limits::OFFER_LIFETIME);
    world.request(1);
    assert!(world.take().refusals.is_empty());
    world.tick(Millis::from_secs(301));
    world.request(2);
    assert_eq!(world.take().refusals, [ProviderRefusal::StaleOffer]);
}

#[test]
fn what_runs_in_a_fresh_channel_is_no_larger_a_gift_than_what_is_tolerated() {
    let mut world = World::with_channel(1_000_000);
    let most = u8::try_from(limits::DEBT_STEPS).unwrap();
    for number in 0..=most {
        world.request(number);
    }
    assert_eq!(world.take().refusals, [ProviderRefusal::Busy { retry_after: RETRY_AFTER }]);
    assert_eq!(world.provider.jobs(), usize::from(most));
    // All of them take their step and leave: that is what is owed, and not more.
    for number in 0..most {
        world.act(|it, now, out| it.engine_started(consumer(), job(number), PROMPT, now, out));
        let total = 10 * (u64::from(number) + 1);
        world.pay(number, 10, total, 1);
        world.generate(number, limits::CREDIT_STEP.get());
    }
    world.act(|it, _, out| it.session_closed(consumer(), out));
    let step = u64::from(limits::CREDIT_STEP.get());
    assert_eq!(world.provider.payees().next().unwrap().owed(), nano(step * u64::from(most)));
    // One at a time it goes on, as before.
    world.greet(consumer());
    world.ledger_shows(Some(Allocation::new(PAYOUT, nano(1_000_000), 1)));
    world.take();
    world.request(100);
    world.request(101);
    assert_eq!(world.take().refusals, [ProviderRefusal::Busy { retry_after: RETRY_AFTER }]);
    assert_eq!(world.provider.jobs(), 1);
}

#[test]
fn one_consumer_gets_only_so_many_places() {
    let mut world = World::with_channel(1_000_000);
    // A consumer that has paid for many steps may have many jobs.
    let step = u64::from(limits::CREDIT_STEP.get());
    world.pay(0, 0, 16 * step * u64::try_from(limits::JOBS_PER_PEER).unwrap(), 1);
    for number in 0..=u8::try_from(limits::JOBS_PER_PEER).unwrap() {
        world.request(number);
    }
    assert_eq!(world.take().refusals, [ProviderRefusal::Busy { retry_after: RETRY_AFTER }]);
    assert_eq!(world.provider.jobs(), limits::JOBS_PER_PEER);
}

#[test]
fn greetings_without_end_do_not_read_the_ledger_without_end() {
    let mut world = World::with_channel(1_000);
    let proof = World::proof(consumer());
    for _ in 0..100 {
        world.act(|it, now, out| it.channel_hello(consumer(), VAULT, proof, now, out));
        world.ledger_shows(Some(Allocation::new(PAYOUT, nano(1_000), 1)));
    }
    let seen = world.take();
    let first = usize::try_from(limits::GREETINGS).unwrap() - 1;
    assert_eq!((seen.reads, seen.views.len()), (first, 100));
    assert_eq!(seen.views[99], Some((1, nano(1_000))), "it is answered all the same");
    world.tick(limits::GREETING_WINDOW);
    world.act(|it, now, out| it.channel_hello(consumer(), VAULT, proof, now, out));
    assert_eq!(world.take().reads, 1);
}

#[test]
fn a_channel_without_room_for_the_prompt_and_a_step_is_refused() {
    let mut world = World::with_channel(41);
    world.start(1);
    let needed = ProviderRefusal::NoHeadroom { headroom: nano(41), needed: nano(42) };
    assert_eq!(world.take().refusals, [needed]);
    assert_eq!(world.provider.jobs(), 0);
}

#[test]
fn a_voucher_of_another_vault_closes_the_session() {
    let mut world = World::with_channel(1_000);
    world.start(1);
    let vault = TonAddress { workchain: 0, hash: [0xcc; 32] };
    let channel = ChannelId { vault, provider: config().key.id(), epoch: 1 };
    let voucher = vault_key().sign(channel.voucher(nano(10), [0; 32]));
    let voucher = voucher.verify(&vault_key().public()).unwrap();
    world.act(|it, now, out| it.paid(consumer(), None, &voucher, now, out));
    let seen = world.take();
    assert_eq!((seen.closed, seen.granted.len()), (1, 0));
}

#[test]
fn a_settlement_that_fails_is_tried_again_at_the_next_look() {
    let mut world = World::with_channel(10_000_000);
    world.start(1);
    world.pay(1, 10, 2_000_000, 1);
    assert_eq!(world.take().settled, [nano(2_000_000)]);
    let voucher = world.provider.payees().next().unwrap().best().unwrap();
    world.act(|it, _, _| it.settle_failed(&voucher));
    world.tick(Millis::from_secs(60));
    assert_eq!(world.take().reads, 1);
    world.ledger_shows(Some(Allocation::new(PAYOUT, nano(10_000_000), 1)));
    assert_eq!(world.take().settled, [nano(2_000_000)]);
    // While one is under way no other is sent; and when it is done nothing is due.
    world.ledger_shows(Some(Allocation::new(PAYOUT, nano(10_000_000), 1)));
    world.act(|it, _, out| it.settled(&voucher, nano(2_000_000), out));
    assert_eq!(world.take().settled, []);
    assert_eq!(world.provider.settling(), 0);
}

#[test]
fn a_release_on_the_ledger_settles_at_once_stops_jobs_and_admits_none() {
    let mut world = World::with_channel(1_000);
    world.start(1);
    world.pay(1, 10, 10, 1);
    world.start(2);
    assert_eq!(world.take().settled, []);
    let unlock_at = Some(world.now.after(Millis::from_secs(60)));
    let released = Allocation { unlock_at, ..Allocation::new(PAYOUT, nano(1_000), 1) };
    world.ledger_shows(Some(released));
    let seen = world.take();
    assert_eq!(seen.settled, [nano(10)]);
    assert_eq!(seen.cancelled, [FinishReason::Unpaid], "the job that was paid for ends");
    assert!(
        matches!(seen.refusals[..], [ProviderRefusal::NoHeadroom { .. }]),
        "the other never began"
    );
    world.request(3);
    assert!(matches!(world.take().refusals[..], [ProviderRefusal::NoHeadroom { .. }]));
    // Allocated again, the same channel goes on.
    world.ledger_shows(Some(Allocation::new(PAYOUT, nano(2_000), 1)));
    world.request(4);
    assert!(world.take().refusals.is_empty());
}

#[test]
fn an_idle_channel_is_looked_at_while_its_consumer_is_here() {
    let mut world = World::with_channel(1_000);
    world.tick(Millis::from_secs(60));
    assert_eq!(world.take().reads, 1, "a release is noticed before anything is due");
    world.act(|it, _, out| it.session_closed(consumer(), out));
    world.tick(Millis::from_secs(60));
    assert_eq!(world.take().reads, 0);
}

#[test]
fn an_allocation_that_is_gone_pays_for_nothing() {
    let mut world = World::with_channel(1_000);
    world.start(1);
    world.pay(1, 10, 10, 1);
    world.take();
    world.ledger_shows(None);
    let seen = world.take();
    assert_eq!((seen.cancelled, seen.settled), (vec![FinishReason::Unpaid], vec![]));
    world.request(2);
    assert!(matches!(world.take().refusals[..], [ProviderRefusal::NoHeadroom { .. }]));
    // The server was only behind: the channel is as it was, and its voucher is not lost.
    world.ledger_shows(Some(Allocation::new(PAYOUT, nano(1_000), 1)));
    world.request(3);
    assert!(world.take().refusals.is_empty());
    assert_eq!(world.provider.payees().next().unwrap().promised(), nano(10));
}

#[test]
fn a_voucher_of_a_newer_epoch_has_the_vault_read_again_once() {
    let mut world = World::with_channel(1_000);
    world.start(1);
    world.pay(1, 10, 10, 1);
    world.take();
    world.pay(1, 10, 10, 2);
    world.pay(1, 11, 11, 2);
    let seen = world.take();
    assert_eq!((seen.reads, seen.closed), (1, 0));
    world.pay(1, 11, 11, 0);
    assert_eq!(world.take().reads, 0, "an older epoch is only late");
    world.ledger_shows(Some(Allocation::new(PAYOUT, nano(500), 2)));
    assert_eq!(world.provider.jobs(), 0, "the old allocation pays for nothing any more");
    let payee = world.provider.payees().next().unwrap();
    assert_eq!((payee.channel().epoch, payee.owed()), (2, NanoTon::ZERO));
    // A server that is behind does not bring the old epoch back.
    world.ledger_shows(Some(Allocation::new(PAYOUT, nano(1_000), 1)));
    assert_eq!(world.provider.payees().next().unwrap().channel().epoch, 2);
    assert_eq!(world.stored.len(), 2, "both epochs' records are kept");
}

#[test]
fn taking_a_step_on_credit_and_leaving_works_only_so_often() {
    let mut world = World::with_channel(100_000);
    let mut paid = 0;
    let mut served = 0;
    for number in 1..=100 {
        world.greet(consumer());
        world.ledger_shows(Some(Allocation::new(PAYOUT, nano(100_000), 1)));
        world.request(number);
        if !world.take().refusals.is_empty() {
            break;
        }
        world.act(|it, now, out| it.engine_started(consumer(), job(number), PROMPT, now, out));
        paid += 10;
        world.pay(number, 10, paid, 1);
        assert_eq!(world.take().granted, [limits::CREDIT_STEP]);
        world.generate(number, 32);
        served += 32;
        world.act(|it, _, out| it.session_closed(consumer(), out));
    }
    let tolerated = u64::from(limits::DEBT_STEPS * limits::CREDIT_STEP.get());
    assert_eq!(served, tolerated + 32, "the step that goes beyond is the last");
    // Once it is paid, the channel is as good as before.
    world.pay(0, 0, paid, 1);
    world.pay(0, 0, paid + served, 1);
    assert_eq!(world.provider.payees().next().unwrap().owed(), NanoTon::ZERO);
    world.request(101);
    assert!(world.take().refusals.is_empty());
}

#[test]
fn a_second_session_ends_the_jobs_of_the_first() {
    let mut world = World::with_channel(1_000);
    world.start(1);
    world.pay(1, 10, 10, 1);
    world.generate(1, 4);
    world.greet(consumer());
    assert_eq!(world.provider.jobs(), 0);
    assert_eq!(world.take().forgotten, 1);
    assert_eq!(world.provider.payees().next().unwrap().owed(), nano(4));
}

#[test]
fn a_job_that_is_cancelled_before_its_prompt_is_paid_owes_nothing() {
    let mut world = World::with_channel(1_000);
    world.start(1);
    world.act(|it, _, out| it.cancel_requested(consumer(), job(1), out));
    assert_eq!(world.provider.jobs(), 0);
    assert_eq!(world.provider.payees().next().unwrap().owed(), NanoTon::ZERO);
}

#[test]
fn grants_follow_the_money_and_end_at_the_asked_length() {
    let mut world = World::with_channel(1_000);
    world.start(1);
    world.pay(1, 9, 9, 1);
    assert_eq!(world.take().granted, [], "the prompt is not paid");
    world.pay(1, 10, 10, 1);
    world.pay(1, 26, 26, 1);
    world.pay(1, 205, 205, 1);
    world.pay(1, 206, 206, 1);
    let granted = [32, 48, 200].map(Tokens::new);
    assert_eq!(world.take().granted, granted);
}

#[test]
fn a_job_that_may_go_on_and_does_not_loses_its_session() {
    let mut world = World::with_channel(1_000);
    world.start(1);
    world.pay(1, 10, 10, 1);
    world.generate(1, 5);
    world.tick(limits::PAYMENT_TIMEOUT);
    assert_eq!(world.take().closed, 0, "reading a prompt may take minutes");
    world.tick(limits::SERVE_STALL_TIMEOUT);
    assert_eq!(world.take().closed, 1);
}

#[test]
fn a_finished_job_that_nobody_pays_is_remembered_as_owed() {
    let mut world = World::with_channel(1_000);
    world.start(1);
    world.pay(1, 10, 10, 1);
    world.generate(1, 32);
    world.finish(1, 32, FinishReason::Stop);
    assert_eq!(world.provider.jobs(), 1);
    world.tick(limits::PAYMENT_TIMEOUT);
    assert_eq!(world.provider.jobs(), 0);
    assert_eq!(world.provider.payees().next().unwrap().owed(), nano(32));
}

#[test]
fn a_display_shows_a_job_at_every_step_and_its_settlement() {
    use super::view::Phase;
    let mut world = World::with_channel(1_000);
    let phase = |world: &World| world.provider.job_views().next().map(|it| it.phase);
    world.request(1);
    assert_eq!(phase(&world), Some(Phase::Admitting));
    world.start(1);
    let running = |granted, generated| {
        let (granted, generated) = (granted, Tokens::new(generated));
        Some(Phase::Running { prompt: PROMPT, granted, generated })
    };
    assert_eq!(phase(&world), running(None, 0), "the prompt is not paid");
    world.pay(1, 10, 10, 1);
    world.generate(1, 32);
    assert_eq!(phase(&world), running(Some(Tokens::new(32)), 32));
    world.finish(1, 32, FinishReason::Stop);
    let usage = Usage { prompt: PROMPT, completion: Tokens::new(32) };
    assert_eq!(phase(&world), Some(Phase::Closing { price: nano(42), usage }));
    world.pay(1, 42, 42, 1);
    assert_eq!(phase(&world), None);
    assert!(!world.provider.is_settling(VAULT));
    world.act(|it, _, out| it.settle_all(out));
    assert!(world.provider.is_settling(VAULT));
}

#[test]
fn a_change_of_load_is_published_after_the_pause_and_not_at_the_next_renewal() {
    let mut world = World::new();
    world.take();
    world.act(|it, now, out| it.capacity(4, 4, now, out));
    assert_eq!(world.take().published, 0, "the last offer is a moment old");
    let due = world.provider.next_timeout().unwrap();
    assert_eq!(due, world.now.after(PUBLISH_EVERY));
    world.tick(PUBLISH_EVERY);
    assert_eq!(world.take().published, 1);
}
