//! `cocoon_attest::fuzzing::guest_interface` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("guest_interface"),
    |data: &[u8]| cocoon_attest::fuzzing::guest_interface(data)
);
