//! What single steps cost: vouchers, receipts, handshakes, one protocol step, one commit.
//!
//! Owns: the micro benchmarks, each of one public call with realistic arguments.
//! Must not: assert a time; `scripts/bench` prints what was measured.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a benchmark fails by panicking"
)]
#![expect(clippy::panic, reason = "a benchmark fails by panicking")]

/// A consumer and a provider in memory, as the protocol's own tests use them.
#[path = "../../protocol/tests/pair/world.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod world;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cocoon_attest::channel::{
    AcceptOptions, ChannelIdentity, ChannelTasks, ConnectOptions, IdentityOptions, accept, connect,
};
use cocoon_attest::simulated::{SimulatedAttester, SimulatedGuest, dev_policy};
use cocoon_attest::{Appraiser, Attester, Clock, OpenAttester, parse_policy};
use cocoon_node::store::{Record, Store, Table};
use cocoon_protocol::Input;
use cocoon_protocol::attest::{NetworkId, Policy, Tier};
use cocoon_protocol::channel::{Allocation, JobTotal, Payee, VerifiedVoucher, Voucher};
use cocoon_protocol::identity::{JobId, NodeId, NodeKey};
use cocoon_protocol::job::{FinishReason, Usage};
use cocoon_protocol::receipt::Receipt;
use cocoon_protocol::units::{NanoTon, Timestamp, Tokens};
use cocoon_protocol::wire::SessionMessage;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use world::{MODEL, PAYOUT, Parcel, Side, VAULT, World, key, prices, vault_key};

const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

fn voucher(cumulative: u64) -> Voucher {
    Voucher {
        vault: VAULT,
        provider: key(2).id(),
        epoch: 1,
        cumulative: NanoTon::from_nano(cumulative),
        receipts_root: [6; 32],
    }
}

fn vouchers(criterion: &mut Criterion) {
    let signer = vault_key();
    let unsigned = voucher(1_000);
    criterion.bench_function("voucher_sign", |b| b.iter(|| signer.sign(black_box(unsigned))));
    let signed = signer.sign(unsigned);
    let public = signer.public();
    criterion.bench_function("voucher_verify", |b| b.iter(|| black_box(signed).verify(&public)));

    let job = JobId::from_bytes([1; 32]);
    let allocation = Allocation::new(PAYOUT, NanoTon::from_nano(1_000_000_000), 1);
    let mut payee = Payee::new(voucher(0).channel(), allocation, public, PAYOUT).unwrap();
    payee.open(job).unwrap();
    let verified: VerifiedVoucher = signed.verify(&public).unwrap();
    let claim = Some(JobTotal { job, total: NanoTon::from_nano(1_000) });
    criterion.bench_function("payee_accept", |b| {
        b.iter_batched_ref(
            || payee.clone(),
            |payee| payee.accept(black_box(claim), &verified).unwrap(),
            BatchSize::SmallInput,
        );
    });
}

fn receipts(criterion: &mut Criterion) {
    let provider = key(2);
    let usage = Usage { prompt: Tokens::new(100), completion: Tokens::new(200) };
    let receipt = Receipt {
        job: JobId::from_bytes([1; 32]),
        provider: provider.id(),
        vault: VAULT,
        epoch: 1,
        model: MODEL,
        tier: Tier::Attested,
        evidence_digest: [4; 32],
        prompt_commitment: [1; 32],
        completion_commitment: [5; 32],
        sampling_digest: [2; 32],
        usage,
        prices: prices(),
        price: prices().cost(usage.prompt, usage.completion).unwrap(),
        fee: NanoTon::ZERO,
        started: NOW,
        ended: NOW,
        finish: FinishReason::Stop,
    };
    criterion.bench_function("receipt_sign", |b| b.iter(|| black_box(&receipt).sign(&provider)));
    let signed = receipt.sign(&provider);
    criterion.bench_function("receipt_verify", |b| b.iter(|| black_box(&signed).verify().unwrap()));
}

/// One provider's end, which keeps its certificate, as a running node does.
struct Session {
    key: NodeKey,
    network: NetworkId,
    clock: Clock,
    identity: Arc<ChannelIdentity>,
    tier: Tier,
    consumers: AtomicU64,
}

impl Session {
    fn new(attester: Arc<dyn Attester>, tier: Tier) -> Self {
        let key = NodeKey::from_secret(&[1; 32]);
        let network = NetworkId::from_name("benchmark");
        let clock = Clock::new(|| NOW);
        let identity = Arc::new(ChannelIdentity::new(IdentityOptions {
            key: key.clone(),
            attester,
            network,
            capabilities: [3; 32],
            configuration: [4; 32],
            model_manifest: Some([5; 32]),
            clock: clock.clone(),
        }));
        Self { key, network, clock, identity, tier, consumers: AtomicU64::new(0) }
    }

    /// Both ends of one handshake over a pipe in memory: TLS, challenge, evidence, verdict.
    async fn open(&self, appraiser: Arc<Appraiser>) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let tasks = ChannelTasks::default();
        let options = ConnectOptions {
            dialled: self.key.id(),
            network: self.network,
            appraiser,
            minimum_tier: self.tier,
            capabilities: Some([3; 32]),
            identity: None,
            clock: self.clock.clone(),
            tasks: tasks.clone(),
        };
        // Another consumer each time, for each may ask for so many quotes a minute.
        let mut peer = [0; 32];
        let number = self.consumers.fetch_add(1, Ordering::Relaxed);
        peer[..8].copy_from_slice(&number.to_be_bytes());
        let accepting =
            AcceptOptions { peer: NodeId::from_bytes(peer), demand: None, tasks: tasks.clone() };
        let ends = tokio::try_join!(
            connect(near, options),
            accept(far, Arc::clone(&self.identity), accepting)
        );
        drop(ends.unwrap());
        tasks.cancel.cancel();
    }
}

fn sessions(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let open = Session::new(Arc::new(OpenAttester), Tier::Open);
    let closed = Arc::new(Appraiser::new(Policy::closed()));
    criterion.bench_function("session_open", |b| {
        b.iter(|| runtime.block_on(open.open(Arc::clone(&closed))));
    });

    let guest = SimulatedAttester::new(SimulatedGuest::default());
    let attested = Session::new(Arc::new(guest), Tier::Attested);
    let appraiser = || Arc::new(Appraiser::new(parse_policy(&dev_policy()).unwrap()));
    // A stranger: the quote in its certificate and the session's own are both judged.
    criterion.bench_function("session_attested_first", |b| {
        b.iter_batched(
            appraiser,
            |appraiser| runtime.block_on(attested.open(appraiser)),
            BatchSize::SmallInput,
        );
    });
    // A known provider: the verdict on its certificate's quote comes from the cache.
    let known = appraiser();
    criterion.bench_function("session_attested_again", |b| {
        b.iter(|| runtime.block_on(attested.open(Arc::clone(&known))));
    });
}

/// A consumer whose reader was just handed the tokens that make the next payment due.
fn before_payment() -> (World, Input) {
    let mut world = World::new();
    let job = world.submit(1);
    loop {
        if let Some((Side::Consumer, Parcel::Message(SessionMessage::JobChunk { completion, .. }))) =
            world.wire.front()
            && *completion >= cocoon_protocol::limits::PAY_EVERY
            && world.mail.is_empty()
        {
            let completion = *completion;
            return (world, Input::Delivered { job, completion });
        }
        assert!(world.step(), "the job ended before a payment was due");
    }
}

fn steps(criterion: &mut Criterion) {
    let (mut world, input) = before_payment();
    let output = world.consumer.handle(input, world.now);
    // The channel's state and the line in the accounts; the voucher.
    assert_eq!((output.persist.len(), output.effects.len()), (2, 1), "the step pays");
    criterion.bench_function("step_pay", |b| {
        b.iter_batched(
            before_payment,
            |(mut world, input)| {
                let output = world.consumer.handle(input, world.now);
                (world, output)
            },
            BatchSize::SmallInput,
        );
    });

    let runtime = Runtime::new().unwrap();
    // Beside the build's own files, for a folder in memory would make durability free.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Store::open(&folder.path().join("store.redb")).unwrap();
    criterion.bench_function("store_commit", |b| {
        b.iter(|| {
            let record = Record::put(Table::Payer, vec![1; 73], vec![2; 250]);
            runtime.block_on(store.commit(vec![record])).unwrap();
        });
    });
}

fn settings() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_200))
}

criterion_group!(name = costs; config = settings(); targets = vouchers, receipts, sessions, steps);
criterion_main!(costs);
