//! `cocoon_attest::fuzzing::advisory_list` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("advisory_list"),
    |data: &[u8]| cocoon_attest::fuzzing::advisory_list(data)
);
