//! `cocoon_attest::fuzzing::records` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("records"),
    |data: &[u8]| cocoon_attest::fuzzing::records(data)
);
