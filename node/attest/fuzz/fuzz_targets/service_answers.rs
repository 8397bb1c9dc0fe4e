//! `cocoon_attest::fuzzing::service_answers` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("service_answers"),
    |data: &[u8]| cocoon_attest::fuzzing::service_answers(data)
);
