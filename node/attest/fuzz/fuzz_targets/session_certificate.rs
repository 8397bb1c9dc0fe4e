//! `cocoon_attest::fuzzing::session_certificate` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("session_certificate"),
    |data: &[u8]| cocoon_attest::fuzzing::session_certificate(data)
);
