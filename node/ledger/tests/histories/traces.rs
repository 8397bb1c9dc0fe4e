//! What the C++ emulator did with histories of the same generator.
//!
//! Owns: `protocol/testdata/vault-traces.json`, which `contracts/vectors/traces.mjs` records from what
//! this module exports. Must not: compare hashes of transactions; the machines differ in cosmetics.

use cocoon_ledger::embedded::Arriving;
use cocoon_ledger::tycho_types::boc::Boc;
use cocoon_ledger::tycho_types::cell::Cell;
use serde_json::{Value, json};

use crate::actors::Actors;
use crate::compare::Pair;
use crate::generate::{Carrier, History, Step};
use crate::planted::Planted;
use crate::prices;

const TRACES: &str = include_str!("../../../../protocol/testdata/vault-traces.json");
const HISTORIES: u64 = 24;

fn boc(cell: &Cell) -> String {
    Boc::encode_base64(cell)
}

/// Runs the history of `seed` and looks at the pair after its opening and after every step.
fn walk(seed: u64, mut look: impl FnMut(u64, &Cell, Option<i32>, &Pair)) {
    let actors = Actors::new();
    let mut history = History::new(seed, &actors);
    let mut pair = Pair::open(&history, &prices(), Planted::Nothing).unwrap();
    let opening: Arriving = history.opening();
    look(history.now, &opening.cell(history.vault).unwrap(), None, &pair);
    for _ in 0..history.length() {
        let step: Step = history.next(pair.model());
        let exit = pair.step(&step).unwrap();
        let carrier: &Carrier = &step.carrier;
        look(step.now, &carrier.cell(history.vault), Some(exit), &pair);
    }
}

/// For `contracts/vectors/traces.mjs`: the histories' messages, to standard output's file.
#[test]
#[ignore = "writes the file that HISTORIES_EXPORT names; scripts/histories runs it"]
fn export_histories_for_the_emulator() {
    let path = std::env::var("HISTORIES_EXPORT").expect("HISTORIES_EXPORT names a file");
    let mut histories = Vec::new();
    for seed in 0..HISTORIES {
        let mut steps = Vec::new();
        walk(seed, |now, message, _, _| {
            steps.push(json!({ "now": now, "message": boc(message) }));
        });
        let vault = History::new(seed, &Actors::new()).vault.to_string();
        histories.push(json!({ "seed": seed, "vault": vault, "steps": steps }));
    }
    std::fs::write(path, serde_json::to_string(&histories).unwrap()).unwrap();
}

#[test]
fn model_and_contract_do_what_the_reference_emulator_did() {
    let traces: Value = serde_json::from_str(TRACES).unwrap();
    let histories = traces["histories"].as_array().unwrap();
    assert_eq!(histories.len() as u64, HISTORIES);
    let (mut accepted, mut refused) = (0, 0);
    for history in histories {
        let seed = history["seed"].as_u64().unwrap();
        let steps = history["steps"].as_array().unwrap();
        let mut index = 0;
        walk(seed, |now, message, exit, pair| {
            let (step, place) = (&steps[index], format!("history {seed}, step {index}"));
            index += 1;
            assert_eq!(step["now"].as_u64(), Some(now), "{place}");
            assert_eq!(step["message"].as_str(), Some(boc(message).as_str()), "{place}");
            assert_eq!(step["exit"].as_i64(), Some(exit.unwrap_or(0).into()), "{place}");
            let balance = pair.account().balance().unwrap().as_nano().to_string();
            assert_eq!(step["balance_nano"].as_str(), Some(balance.as_str()), "{place}");
            let (_, data) = pair.account().contract().unwrap().unwrap();
            let data = hex::encode(data.repr_hash().0);
            assert_eq!(step["data_hash"].as_str(), Some(data.as_str()), "{place}");
            if exit == Some(0) { accepted += 1 } else { refused += 1 }
        });
        assert_eq!(index, steps.len(), "history {seed}");
    }
    assert!(accepted > 100 && refused > 100, "{accepted} accepted, {refused} refused");
}
