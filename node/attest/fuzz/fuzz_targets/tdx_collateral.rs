//! `cocoon_attest::fuzzing::tdx_collateral` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("tdx_collateral"),
    |data: &[u8]| cocoon_attest::fuzzing::tdx_collateral(data)
);
