//! `cocoon_attest::fuzzing::wire_messages` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("wire_messages"),
    |data: &[u8]| cocoon_attest::fuzzing::wire_messages(data)
);
