//! `cocoon_attest::fuzzing::gpu_report` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("gpu_report"),
    |data: &[u8]| cocoon_attest::fuzzing::gpu_report(data)
);
