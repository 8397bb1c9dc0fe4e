//! `cocoon_attest::fuzzing::evidence_file` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("evidence_file"),
    |data: &[u8]| cocoon_attest::fuzzing::evidence_file(data)
);
