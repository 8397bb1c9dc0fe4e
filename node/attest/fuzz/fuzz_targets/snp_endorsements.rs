//! `cocoon_attest::fuzzing::snp_endorsements` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("snp_endorsements"),
    |data: &[u8]| cocoon_attest::fuzzing::snp_endorsements(data)
);
