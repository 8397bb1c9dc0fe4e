//! A node's state as a sheet: which words it is told in, and under which keys.
//!
//! Owns: headings, labels and keys; `docs/state.md` lists the keys. Must not: set or print anything.

mod consumer;
mod place;
mod provider;

use simnet_host::observation::Queue;
use simnet_host::state::{Identity, Life, NodeState, ProcessState, StoreState};
use simnet_scenario::population::Nat;

use super::sheet::{Cell, Column, Field, Sheet};

/// A node's state.
pub(super) fn sheet(state: &NodeState) -> Sheet {
    let mut sheet = Sheet::default();
    identity(&mut sheet, &state.identity);
    process(&mut sheet, &state.process);
    match &state.consumer {
        Some(consumer) => consumer::show(&mut sheet, consumer),
        None => sheet.absent("consumer"),
    }
    match &state.provider {
        Some(provider) => provider::show(&mut sheet, provider),
        None => sheet.absent("provider"),
    }
    store(&mut sheet, &state.store);
    match &state.place {
        Some(place) => place::show(&mut sheet, place),
        None => sheet.absent("overlay"),
    }
    sheet
}

fn identity(sheet: &mut Sheet, it: &Identity) {
    let roles = match (it.consumes, it.provides.is_some()) {
        (true, true) => "consumer and provider",
        (true, false) => "consumer",
        (false, true) => "provider",
        (false, false) => "keeps the index",
    };
    let nat = match it.link.nat {
        Nat::Public => "public",
        Nat::Cone => "cone",
        Nat::Symmetric => "symmetric",
    };
    let clock = match it.skew_ms {
        0 => "right".to_owned(),
        ahead if ahead > 0 => format!("{ahead} ms ahead"),
        behind => format!("{} ms behind", behind.unsigned_abs()),
    };
    let adversary = it.adversary.as_ref().map(|group| {
        let until = group.until.map_or_else(String::new, |until| format!(" until {until}"));
        let attacks = if it.hostile { "" } else { ", but does not attack: it is the control" };
        format!("{}, from {}{until}{attacks}", group.kind.as_str(), group.from)
    });
    let victim_of = it.victim_of.map(|group| format!("group {group} of the adversaries"));
    let act = it.plan.map(|it| format!("{:?}", it.act));
    let (claimed, genuine) = it.provides.unzip();
    let fields = vec![
        ("node", "identity", Cell::Id(it.node.to_string())),
        ("roles", "roles", Cell::text(roles)),
        ("hardware", "hardware", Cell::text(&it.class)),
        ("region", "region", Cell::text(&it.region)),
        ("nat", "reachable", Cell::text(nat)),
        ("up", "into the network", Cell::text(it.link.up)),
        ("down", "from the network", Cell::text(it.link.down)),
        ("last_mile_s", "last mile, one way", Cell::Long(it.link.last_mile)),
        ("clock", "own clock", Cell::Text(clock)),
        ("clock_ahead_s", "", Cell::Number(seconds(it.skew_ms))),
        some("tier", "tier that it claims", Cell::maybe(claimed, Cell::text)),
        some("genuine_tier", "tier that it has", Cell::maybe(genuine, Cell::text)),
        some("adversary", "adversary", Cell::maybe(adversary, Cell::Text)),
        some("act", "what it does", Cell::maybe(act, Cell::Text)),
        some("victim_of", "victim of", Cell::maybe(victim_of, Cell::Text)),
    ];
    sheet.fields("identity", "who it is", fields);
}

/// A value that people only see if there is one.
fn some(key: &'static str, label: &'static str, cell: Cell) -> Field {
    let label = if cell == Cell::Nothing { "" } else { label };
    (key, label, cell)
}

fn seconds(millis: i64) -> f64 {
    i32::try_from(millis).map_or(f64::INFINITY, f64::from) / 1_000.0
}

fn process(sheet: &mut Sheet, it: &ProcessState) {
    let life = match it.life {
        Life::NeverStarted => "has never started",
        Life::Idle => "runs, and has done nothing yet",
        Life::Runs => "runs",
        Life::Stopped => "is stopped",
    };
    let commit = it.commit.map(|it| {
        let (number, records, effects) = (it.number, it.records, it.effects);
        format!("number {number}, of {records} records; {effects} effects wait for it")
    });
    let deepest = it.deepest.iter().map(|(queue, it)| format!("{} {it}", word(*queue)));
    let deepest: Vec<_> = deepest.collect();
    let deepest = (!deepest.is_empty()).then(|| deepest.join(", "));
    let fields = vec![
        ("life", "process", Cell::text(life)),
        ("draining", "drains", Cell::Flag(it.draining)),
        ("inbox", "inputs in its inbox", Cell::count(it.inbox)),
        ("commit", "commit under way", Cell::maybe(commit, Cell::Text)),
        ("wakes_at_s", "protocol wakes at", Cell::maybe(it.wakes_at, Cell::At)),
        ("deepest", "deepest queues so far", Cell::maybe(deepest, Cell::Text)),
    ];
    sheet.fields("process", "process", fields);
}

const fn word(queue: Queue) -> &'static str {
    match queue {
        Queue::ConsumerJobs => "own jobs",
        Queue::JobsOfPeer => "jobs of a consumer",
        Queue::Engine => "engine",
        Queue::Inbox => "inbox",
        Queue::Book => "book",
        Queue::Sessions => "accepted sessions",
    }
}

const STORED_PAYERS: &[Column] = &[
    ("provider", "provider"),
    ("epoch", "epoch"),
    ("promised_nanoton", "promised"),
    ("may_owe_nanoton", "may owe"),
];

const STORED_PAYEES: &[Column] =
    &[("consumer", "consumer"), ("epoch", "epoch"), ("held_nanoton", "held")];

fn store(sheet: &mut Sheet, it: &StoreState) {
    let fields = vec![
        ("commits", "commits begun", Cell::count(it.commits)),
        ("receipts", "receipts", Cell::count(it.receipts)),
        ("interrupted_nanoton", "TON for jobs without one", Cell::Money(it.interrupted)),
    ];
    sheet.fields("store", "store: what a crash leaves", fields);
    let payers = it.payers.iter().map(|it| {
        vec![
            Cell::Node(it.provider),
            Cell::count(it.epoch),
            Cell::Money(it.promised),
            Cell::Money(it.may_owe),
        ]
    });
    let title = "store: channels that it pays in, in TON";
    sheet.table("store.payers", title, STORED_PAYERS, payers.collect());
    let payees = it.payees.iter().map(|it| {
        let consumer = Cell::maybe(it.consumer, Cell::Node);
        vec![consumer, Cell::count(it.epoch), Cell::Money(it.held)]
    });
    let title = "store: channels that it is paid in, in TON";
    sheet.table("store.payees", title, STORED_PAYEES, payees.collect());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use cocoon_protocol::attest::Tier;
    use cocoon_protocol::identity::{JobId, NodeId};
    use cocoon_protocol::job::consumer::view::{Phase, Progress};
    use cocoon_protocol::job::provider::view::Phase as Served;
    use cocoon_protocol::offer::Load;
    use cocoon_protocol::units::{NanoTon, PricePerMillion, Prices, Tokens};
    use simnet_host::HostId;
    use simnet_host::engine::{EngineJob, EnginePhase};
    use simnet_host::state::{
        CommitState, ConsumerJob, ConsumerState, EngineState, FundsState, NetworkState, Peer,
        PlaceState, ProviderJob, ProviderState, VaultState,
    };
    use simnet_scenario::{Link, Moment};

    use super::*;

    const PEER: Peer = Peer { host: Some(HostId(4)), node: NodeId::from_bytes([4; 32]) };
    const JOB: JobId = JobId::from_bytes([7; 32]);

    fn prices() -> Prices {
        let price = PricePerMillion::from_nano(2_000_000_000);
        Prices { prompt: price, completion: price }
    }

    fn consumer() -> ConsumerState {
        let progress = Progress {
            prompt: Tokens::new(90),
            received: Tokens::new(40),
            paid_for: Tokens::new(32),
            vouchers: 3,
            promised: NanoTon::from_nano(1_500),
            tier: Tier::Open,
            cancelled: false,
        };
        let job = ConsumerJob {
            job: JOB,
            model: "chat".to_owned(),
            minimum_tier: Tier::Open,
            submitted: Moment::from_millis(500),
            phase: Some(Phase::Running(progress)),
            provider: Some((PEER, prices())),
            attempts: 1,
            prompt: Tokens::new(90),
            counted: Tokens::new(41),
            deadline: Some(Moment::from_millis(60_000)),
            cancelled: false,
        };
        let funds = FundsState {
            vault: VaultState::Opening,
            deposit: NanoTon::from_nano(5_000_000_000),
            allocation: NanoTon::from_nano(100_000_000),
            allocating: None,
            patience: Some(Duration::from_secs(60)),
            channels: Vec::new(),
        };
        let (book, reputation, sessions) = (Vec::new(), Vec::new(), Vec::new());
        ConsumerState { jobs: vec![job], book, reputation, sessions, funds }
    }

    fn provider() -> ProviderState {
        let engine = EngineState {
            places: 2,
            queue: 0,
            taken: 1,
            working: 1,
            requests: 0,
            wakes_at: Some(Moment::from_millis(1_200)),
        };
        let written = EngineJob {
            key: (PEER.node, JOB),
            phase: EnginePhase::Writing,
            prompt: Tokens::new(90),
            granted: Tokens::new(64),
            written: Tokens::new(45),
            sent: Tokens::new(41),
            limit: Tokens::new(100),
        };
        let (prompt, generated) = (Tokens::new(90), Tokens::new(41));
        let job = ProviderJob {
            consumer: PEER,
            job: JOB,
            model: "chat".to_owned(),
            phase: Some(Served::Running { prompt, granted: Some(Tokens::new(64)), generated }),
            taken: Some(Moment::from_millis(600)),
            engine: Some(written),
            unpaid: NanoTon::from_nano(900),
        };
        ProviderState {
            load: Load::Busy,
            offer: None,
            price_level: 1_000_000,
            settle_threshold: NanoTon::from_nano(80_000_000),
            settling: 0,
            engine,
            jobs: vec![job],
            sessions: Vec::new(),
            channels: Vec::new(),
        }
    }

    fn state() -> NodeState {
        NodeState {
            at: Moment::from_millis(1_000),
            identity: Identity {
                host: HostId(3),
                node: NodeId::from_bytes([3; 32]),
                consumes: true,
                provides: Some((Tier::Attested, Tier::Open)),
                class: "h100".to_owned(),
                region: "japan".to_owned(),
                link: Link::default(),
                skew_ms: -40,
                adversary: None,
                hostile: false,
                plan: None,
                victim_of: None,
            },
            process: ProcessState {
                life: Life::Runs,
                draining: false,
                inbox: 2,
                commit: Some(CommitState { number: 9, records: 1, effects: 2 }),
                wakes_at: None,
                deepest: vec![(Queue::Inbox, 2)],
            },
            consumer: Some(consumer()),
            provider: Some(provider()),
            store: StoreState {
                commits: 9,
                receipts: 1,
                interrupted: NanoTon::ZERO,
                payers: Vec::new(),
                payees: Vec::new(),
            },
            place: Some(PlaceState {
                network: Some(NetworkState::default()),
                ..PlaceState::default()
            }),
        }
    }

    #[test]
    fn people_read_what_a_node_is_and_does() {
        let text = sheet(&state()).for_people(Some("--all"));
        for line in [
            "  roles                consumer and provider",
            "  own clock            40 ms behind",
            "  tier that it claims  attested",
            "  tier that it has     open",
            "  commit under way       number 9, of 1 records; 2 effects wait for it",
            "  deepest queues so far  inbox 2",
            "  070707070707  chat   running  node 4        90    41    32  0.0000015      1  0.500s",
            "  vault                    is being opened",
            "  070707070707  node 4    chat   running  writing      90       64       45    41    100",
            "consumer: offers in its book, in TON for a million tokens: none",
        ] {
            assert!(text.contains(line), "{line}\nis missing in\n{text}");
        }
        assert!(!text.contains("adversary") && !text.contains("victim"), "it is honest\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 120), "too wide\n{text}");
    }

    #[test]
    fn what_there_is_not_is_null() {
        let absent = NodeState { consumer: None, provider: None, place: None, ..state() };
        let value = sheet(&absent).for_programs();
        for part in ["consumer", "provider", "overlay"] {
            assert_eq!(value.get(part), Some(&serde_json::Value::Null), "{part}");
        }
        let text = sheet(&absent).for_people(None);
        assert!(!text.contains("consumer:") && !text.contains("overlay"), "{text}");
    }

    /// The keys are an interface: `docs/state.md` has every one of them, and no other.
    #[test]
    fn every_key_is_documented() {
        let text = include_str!("../../../../docs/state.md");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let documented: BTreeSet<_> = rows.map(|(key, _)| key.to_owned()).collect();
        let keys: BTreeSet<_> = sheet(&state()).keys().into_iter().collect();
        let missing: Vec<_> = keys.difference(&documented).collect();
        let stale: Vec<_> = documented.difference(&keys).collect();
        assert!(missing.is_empty() && stale.is_empty(), "missing {missing:?}, stale {stale:?}");
    }
}
