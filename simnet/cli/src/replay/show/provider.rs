//! A provider's part of a sheet: its offer, the engine, jobs, sessions, channels.
//!
//! Owns: its headings, labels and keys. Must not: set or print anything.

use cocoon_protocol::job::provider::view::Phase;
use cocoon_protocol::offer::Load;
use cocoon_protocol::units::NanoTon;
use simnet_host::engine::EnginePhase;
use simnet_host::state::{
    AcceptedSession, EngineState, OfferedModel, PayeeChannel, ProviderJob, ProviderState,
};

use super::super::sheet::{Cell, Column, Sheet};

const MODELS: &[Column] = &[
    ("model", "model"),
    ("context_tokens", "context"),
    ("prompt_price_nanoton_per_million", "prompt"),
    ("completion_price_nanoton_per_million", "completion"),
];

const JOBS: &[Column] = &[
    ("job", "job"),
    ("consumer", "consumer"),
    ("model", "model"),
    ("phase", "phase"),
    ("engine", "engine"),
    ("prompt_tokens", "prompt"),
    ("granted_tokens", "granted"),
    ("written_tokens", "written"),
    ("sent_tokens", "sent"),
    ("limit_tokens", "limit"),
    ("unpaid_nanoton", "TON unpaid"),
    ("price_nanoton", ""),
    ("taken_s", "since"),
];

const SESSIONS: &[Column] =
    &[("consumer", "consumer"), ("vault_known", "vault read"), ("heard_s", "heard last")];

const CHANNELS: &[Column] = &[
    ("consumer", "consumer"),
    ("epoch", "epoch"),
    ("limit_nanoton", "limit"),
    ("held_nanoton", "held"),
    ("durable_nanoton", "durable"),
    ("settled_nanoton", "settled"),
    ("unsettled_nanoton", "to settle"),
    ("owed_nanoton", "owed"),
    ("jobs", "jobs"),
    ("settling", "settling"),
    ("release_at_s", "released at"),
];

/// All of it.
pub(super) fn show(sheet: &mut Sheet, it: &ProviderState) {
    let offer = it.offer.as_ref();
    let level = f64::from(it.price_level) / 10_000.0;
    let fields = vec![
        ("load", "load, as it says", Cell::text(load(it.load))),
        ("sequence", "newest offer", Cell::maybe(offer, |it| Cell::count(it.sequence))),
        ("tier", "tier of its sessions", Cell::maybe(offer, |it| Cell::text(it.tier))),
        ("issued_s", "offered at", Cell::maybe(offer, |it| Cell::At(it.issued))),
        ("expires_s", "offered until", Cell::maybe(offer, |it| Cell::At(it.expires))),
        ("price_level_percent", "prices, % of its own", Cell::Number(level)),
        ("settling", "settlements under way", Cell::count(it.settling)),
        ("settle_threshold_nanoton", "settles from, TON", Cell::Money(it.settle_threshold)),
    ];
    sheet.fields("provider.offer", "provider: offer", fields);
    let models = offer.iter().flat_map(|it| &it.models).map(model).collect();
    let title = "provider: models on offer, in TON for a million tokens";
    sheet.table("provider.models", title, MODELS, models);
    engine(sheet, &it.engine);
    let jobs = it.jobs.iter().map(job).collect();
    sheet.table("provider.jobs", "provider: jobs that it has taken", JOBS, jobs);
    let sessions = it.sessions.iter().map(session).collect();
    let title = "provider: sessions that consumers opened";
    sheet.table("provider.sessions", title, SESSIONS, sessions);
    let channels = it.channels.iter().map(channel).collect();
    sheet.table("provider.channels", "provider: channels, in TON", CHANNELS, channels);
}

/// How full a provider says it is.
pub(super) const fn load(load: Load) -> &'static str {
    match load {
        Load::Idle => "idle",
        Load::Busy => "busy",
        Load::Full => "full",
        Load::Draining => "draining",
    }
}

fn model(it: &OfferedModel) -> Vec<Cell> {
    vec![
        Cell::text(&it.model),
        Cell::count(it.context.get()),
        Cell::Money(NanoTon::from_nano(it.prices.prompt.as_nano())),
        Cell::Money(NanoTon::from_nano(it.prices.completion.as_nano())),
    ]
}

fn engine(sheet: &mut Sheet, it: &EngineState) {
    let fields = vec![
        ("places", "places", Cell::count(it.places)),
        ("queue", "queue behind them", Cell::count(it.queue)),
        ("jobs", "jobs in it", Cell::count(it.taken)),
        ("working", "of them at work", Cell::count(it.working)),
        ("requests", "requests at the door", Cell::count(it.requests)),
        ("wakes_at_s", "has something to say at", Cell::maybe(it.wakes_at, Cell::At)),
    ];
    sheet.fields("provider.engine", "provider: engine", fields);
}

fn job(it: &ProviderJob) -> Vec<Cell> {
    let (phase, price) = match it.phase {
        None => ("given up", None),
        Some(Phase::Admitting) => ("admitting", None),
        Some(Phase::Running { granted: None, .. }) => ("prompt unpaid", None),
        Some(Phase::Running { .. }) => ("running", None),
        Some(Phase::Closing { price, .. }) => ("closing", Some(price)),
    };
    // The engine knows most; once a job has left it, the protocol's word stands.
    let (prompt, sent) = match it.phase {
        Some(Phase::Running { prompt, generated, .. }) => (Some(prompt), Some(generated)),
        Some(Phase::Closing { usage, .. }) => (Some(usage.prompt), Some(usage.completion)),
        Some(Phase::Admitting) | None => (None, None),
    };
    let engine = it.engine;
    let tokens = |tokens: Option<cocoon_protocol::units::Tokens>| {
        Cell::maybe(tokens, |it| Cell::count(it.get()))
    };
    vec![
        Cell::Id(it.job.to_string()),
        Cell::Node(it.consumer),
        Cell::text(&it.model),
        Cell::text(phase),
        Cell::maybe(engine, |it| Cell::text(at_work(it.phase))),
        tokens(engine.map(|it| it.prompt).or(prompt)),
        tokens(engine.map(|it| it.granted)),
        tokens(engine.map(|it| it.written).or(sent)),
        tokens(engine.map(|it| it.sent).or(sent)),
        tokens(engine.map(|it| it.limit)),
        Cell::Money(it.unpaid),
        Cell::maybe(price, Cell::Money),
        Cell::maybe(it.taken, Cell::At),
    ]
}

const fn at_work(phase: EnginePhase) -> &'static str {
    match phase {
        EnginePhase::Queued => "queued",
        EnginePhase::Waiting => "waiting",
        EnginePhase::Reading => "reading",
        EnginePhase::Writing => "writing",
    }
}

fn session(it: &AcceptedSession) -> Vec<Cell> {
    vec![Cell::Node(it.consumer), Cell::Flag(it.vault_known), Cell::At(it.heard)]
}

fn channel(it: &PayeeChannel) -> Vec<Cell> {
    vec![
        Cell::maybe(it.consumer, Cell::Node),
        Cell::count(it.epoch),
        Cell::Money(it.limit),
        Cell::Money(it.held),
        Cell::Money(it.durable),
        Cell::Money(it.settled),
        Cell::Money(it.unsettled),
        Cell::Money(it.owed),
        Cell::count(it.jobs),
        Cell::Flag(it.settling),
        Cell::maybe(it.release_at, Cell::At),
    ]
}
