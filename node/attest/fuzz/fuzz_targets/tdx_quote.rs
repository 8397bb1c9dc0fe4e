//! `cocoon_attest::fuzzing::tdx_quote` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("tdx_quote"),
    |data: &[u8]| cocoon_attest::fuzzing::tdx_quote(data)
);
