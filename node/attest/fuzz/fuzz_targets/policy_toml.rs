//! `cocoon_attest::fuzzing::policy_toml` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("policy_toml"),
    |data: &[u8]| cocoon_attest::fuzzing::policy_toml(data)
);
