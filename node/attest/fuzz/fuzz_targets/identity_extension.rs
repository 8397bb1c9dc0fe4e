//! `cocoon_attest::fuzzing::identity_extension` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("identity_extension"),
    |data: &[u8]| cocoon_attest::fuzzing::identity_extension(data)
);
