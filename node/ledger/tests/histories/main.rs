//! Generated histories of a vault: the reference model and the contract, side by side.
//!
//! One generator drives `protocol`'s model and the committed contract in the embedded ledger in this
//! process; what the C++ emulator did with the same histories is recorded and compared as well. They
//! agree on every balance, refusal, payment and receipts root, or a test fails and names the step.
//!
//! Owns: how many, and that they go everywhere. Must not: reach into the crate.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_enum_variant,
    clippy::wildcard_enum_match_arm,
    reason = "a failed step is a failed test, and a new command shows as one that is not generated"
)]

mod actors;
mod compare;
mod generate;
mod planted;
mod traces;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cocoon_ledger::embedded::{Prices, Rent};
use cocoon_protocol::channel::settlement::VaultError;
use cocoon_protocol::identity::Network;

use self::actors::Actors;
use self::compare::Pair;
use self::generate::{History, START};
use self::planted::Planted;

/// How often each kind of message ended with each exit code.
type Tally = BTreeMap<(&'static str, i32), u64>;

fn prices() -> Arc<Prices> {
    let now = u32::try_from(START).unwrap();
    Arc::new(Prices::new(Network::Devnet, Rent::Free, now).unwrap())
}

/// Runs the history of `seed`; what disagreed, if anything did.
fn run(seed: u64, prices: &Arc<Prices>, bug: Planted, tally: &mut Tally) -> Result<(), String> {
    let actors = Actors::new();
    let mut history = History::new(seed, &actors);
    let mut pair = Pair::open(&history, prices, bug)?;
    for index in 0..history.length() {
        let step = history.next(pair.model());
        let exit = pair
            .step(&step)
            .map_err(|why| format!("history {seed}, step {index}: {why}\n  {step:#?}"))?;
        *tally.entry((step.kind, exit)).or_default() += 1;
    }
    Ok(())
}

/// Runs histories `first..first + count` on all cores.
fn run_all(first: u64, count: u64) -> Tally {
    let (next, total) = (AtomicU64::new(first), Mutex::new(Tally::new()));
    let prices = prices();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut tally = Tally::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    if let Err(why) = run(seed, &prices, Planted::Nothing, &mut tally) {
                        panic!("{why}");
                    }
                }
                let mut total = total.lock().unwrap();
                for (key, number) in tally {
                    *total.entry(key).or_default() += number;
                }
            });
        }
    });
    total.into_inner().unwrap()
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not `{text}`"))
    })
}

#[test]
fn ten_thousand_histories_agree() {
    let tally = run_all(0, 10_000);
    // The generator is worth nothing where it does not go.
    let ended = |code: i32| -> u64 {
        tally.iter().filter(|((_, exit), _)| *exit == code).map(|(_, number)| number).sum()
    };
    // 64 allocations and batches that the client does not build are left to the contract's own tests.
    let elsewhere = [VaultError::TooManyAllocations, VaultError::BadBatch];
    for refusal in VaultError::ALL.into_iter().filter(|refusal| !elsewhere.contains(refusal)) {
        assert!(ended(refusal.exit_code()) > 20, "{refusal:?} was hardly provoked: {tally:#?}");
    }
    let kinds: std::collections::BTreeSet<_> = tally.keys().map(|(kind, _)| *kind).collect();
    for kind in kinds.into_iter().filter(|kind| *kind != "hostile") {
        let succeeded = tally.get(&(kind, 0)).copied().unwrap_or(0);
        assert!(succeeded > 50, "{kind} hardly ever succeeded: {tally:#?}");
    }
}

/// For `scripts/histories`: as many as are asked for, from any seed.
#[test]
#[ignore = "as long as one likes; scripts/histories runs it"]
fn as_many_histories_as_are_asked_for_agree() {
    let (first, count) = (number("HISTORIES_SEED", 10_000), number("HISTORIES_COUNT", 100_000));
    let tally = run_all(first, count);
    let steps: u64 = tally.values().sum();
    println!("{count} histories from seed {first}, {steps} messages: model and contract agree");
    for ((kind, exit), number) in tally {
        let name = VaultError::from_exit_code(exit).map_or_else(
            || if exit == 0 { "done".to_owned() } else { format!("exit {exit}") },
            |refusal| format!("{refusal:?}"),
        );
        println!("{number:>9}  {kind:<20} {name}");
    }
}

#[test]
fn a_bug_planted_in_the_model_is_found() {
    let prices = prices();
    for bug in Planted::ALL {
        let found = (0..400).find(|seed| run(*seed, &prices, bug, &mut Tally::new()).is_err());
        assert!(found.is_some(), "{bug:?} was not found in 400 histories");
    }
}
