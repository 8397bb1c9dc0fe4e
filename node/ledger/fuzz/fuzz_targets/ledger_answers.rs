//! `cocoon_ledger::fuzzing::ledger_answers` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_ledger_fuzz::begin("ledger_answers"),
    |data: &[u8]| cocoon_ledger::fuzzing::ledger_answers(data)
);
