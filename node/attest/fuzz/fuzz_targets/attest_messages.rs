//! `cocoon_attest::fuzzing::attest_messages` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("attest_messages"),
    |data: &[u8]| cocoon_attest::fuzzing::attest_messages(data)
);
