//! `cocoon_attest::fuzzing::snp_report` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("snp_report"),
    |data: &[u8]| cocoon_attest::fuzzing::snp_report(data)
);
