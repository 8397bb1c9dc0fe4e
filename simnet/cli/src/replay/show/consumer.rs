//! A consumer's part of a sheet: jobs, offers, experience, sessions, money.
//!
//! Owns: its headings, labels and keys. Must not: set or print anything.

use cocoon_protocol::job::consumer::view::Phase;
use cocoon_protocol::units::NanoTon;
use simnet_host::state::{
    BookEntry, ConsumerJob, ConsumerState, DialledSession, FundsState, PayerChannel, Reputed,
    VaultState,
};

use super::super::sheet::{Cell, Column, Sheet};
use super::provider::load;

const JOBS: &[Column] = &[
    ("job", "job"),
    ("model", "model"),
    ("minimum_tier", ""),
    ("phase", "phase"),
    ("provider", "provider"),
    ("prompt_tokens", "prompt"),
    ("counted_tokens", "text"),
    ("paid_tokens", "paid"),
    ("promised_nanoton", "TON"),
    ("vouchers", ""),
    ("attempts", "tries"),
    ("submitted_s", "since"),
    ("deadline_s", "given up at"),
    ("cancelled", ""),
    ("prompt_price_nanoton_per_million", ""),
    ("completion_price_nanoton_per_million", ""),
];

const BOOK: &[Column] = &[
    ("provider", "provider"),
    ("model", "model"),
    ("tier", "tier"),
    ("load", "load"),
    ("prompt_price_nanoton_per_million", "prompt"),
    ("completion_price_nanoton_per_million", "completion"),
    ("expires_s", "until"),
];

const REPUTATION: &[Column] = &[
    ("provider", "provider"),
    ("model", "model"),
    ("success", "success"),
    ("first_token_ms", "first token, ms"),
    ("per_token_ms", "a token, ms"),
    ("attempt_ms", "an attempt, ms"),
];

const SESSIONS: &[Column] = &[
    ("provider", "provider"),
    ("minimum_tier", "must prove"),
    ("proved_tier", "has proved"),
    ("since_s", "since"),
];

const CHANNELS: &[Column] = &[
    ("provider", "provider"),
    ("epoch", "epoch"),
    ("limit_nanoton", "limit"),
    ("promised_nanoton", "promised"),
    ("durable_nanoton", "durable"),
    ("headroom_nanoton", "headroom"),
    ("jobs", "jobs"),
    ("seen_nanoton", "provider sees"),
    ("releasing", "releasing"),
];

/// All of it.
pub(super) fn show(sheet: &mut Sheet, it: &ConsumerState) {
    let jobs = it.jobs.iter().map(job).collect();
    sheet.table("consumer.jobs", "consumer: jobs under way", JOBS, jobs);
    let book = it.book.iter().map(offer).collect();
    let title = "consumer: offers in its book, in TON for a million tokens";
    sheet.table("consumer.book", title, BOOK, book);
    let reputation = it.reputation.iter().map(reputed).collect();
    let title = "consumer: what it has experienced with providers";
    sheet.table("consumer.reputation", title, REPUTATION, reputation);
    let sessions = it.sessions.iter().map(session).collect();
    sheet.table("consumer.sessions", "consumer: sessions that it dialled", SESSIONS, sessions);
    funds(sheet, &it.funds);
    let channels = it.funds.channels.iter().map(channel).collect();
    sheet.table("consumer.channels", "consumer: channels, in TON", CHANNELS, channels);
}

fn job(it: &ConsumerJob) -> Vec<Cell> {
    let (phase, progress) = match it.phase {
        None => ("waits for a commit", None),
        Some(Phase::Looking) => ("looking", None),
        Some(Phase::Waiting) => ("all are busy", None),
        Some(Phase::Preparing) => ("preparing", None),
        Some(Phase::Requested) => ("requested", None),
        Some(Phase::Running(progress)) => ("running", Some(progress)),
    };
    let prices = it.provider.map(|(_, prices)| prices);
    let price = |price: Option<cocoon_protocol::units::PricePerMillion>| {
        Cell::maybe(price, |it| Cell::Money(NanoTon::from_nano(it.as_nano())))
    };
    vec![
        Cell::Id(it.job.to_string()),
        Cell::text(&it.model),
        Cell::text(it.minimum_tier),
        Cell::text(phase),
        Cell::maybe(it.provider, |(provider, _)| Cell::Node(provider)),
        Cell::count(it.prompt.get()),
        Cell::count(it.counted.get()),
        Cell::count(progress.map_or(0, |it| it.paid_for.get())),
        Cell::Money(progress.map_or(NanoTon::ZERO, |it| it.promised)),
        Cell::count(progress.map_or(0, |it| it.vouchers)),
        Cell::count(it.attempts),
        Cell::At(it.submitted),
        Cell::maybe(it.deadline, Cell::At),
        Cell::Flag(it.cancelled),
        price(prices.map(|it| it.prompt)),
        price(prices.map(|it| it.completion)),
    ]
}

fn offer(it: &BookEntry) -> Vec<Cell> {
    vec![
        Cell::Node(it.provider),
        Cell::text(&it.model),
        Cell::text(it.tier),
        Cell::text(load(it.load)),
        Cell::Money(NanoTon::from_nano(it.prices.prompt.as_nano())),
        Cell::Money(NanoTon::from_nano(it.prices.completion.as_nano())),
        Cell::At(it.expires),
    ]
}

fn reputed(it: &Reputed) -> Vec<Cell> {
    vec![
        Cell::Node(it.provider),
        Cell::text(&it.model),
        Cell::Number(it.standing.success),
        Cell::Number(it.standing.first_token_ms),
        Cell::Number(it.standing.per_token_ms),
        Cell::Number(it.standing.attempt_ms),
    ]
}

fn session(it: &DialledSession) -> Vec<Cell> {
    vec![
        Cell::Node(it.provider),
        Cell::text(it.minimum_tier),
        Cell::maybe(it.proved, Cell::text),
        Cell::At(it.since),
    ]
}

fn funds(sheet: &mut Sheet, it: &FundsState) {
    let (vault, address, free) = match it.vault {
        VaultState::Unasked => ("not asked for", None, None),
        VaultState::Opening => ("is being opened", None, None),
        VaultState::Open { address, free } => ("open", Some(address), Some(free)),
    };
    let fields = vec![
        ("vault", "vault", Cell::text(vault)),
        ("vault_address", "", Cell::maybe(address, Cell::text)),
        ("free_nanoton", "TON free in it", Cell::maybe(free, Cell::Money)),
        ("deposit_nanoton", "TON deposited at first", Cell::Money(it.deposit)),
        ("allocation_nanoton", "TON allocated at a time", Cell::Money(it.allocation)),
        ("allocating", "allocating for", Cell::maybe(it.allocating, Cell::Node)),
        ("patience_s", "patience of its users", Cell::maybe(it.patience, Cell::Long)),
    ];
    sheet.fields("consumer.funds", "consumer: funds", fields);
}

fn channel(it: &PayerChannel) -> Vec<Cell> {
    vec![
        Cell::Node(it.provider),
        Cell::count(it.epoch),
        Cell::Money(it.limit),
        Cell::Money(it.promised),
        Cell::Money(it.durable),
        Cell::Money(it.headroom),
        Cell::count(it.jobs),
        Cell::maybe(it.seen, Cell::Money),
        Cell::Flag(it.releasing),
    ]
}
