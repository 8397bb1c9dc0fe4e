//! `cocoon_attest::fuzzing::gpu_chain` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("gpu_chain"),
    |data: &[u8]| cocoon_attest::fuzzing::gpu_chain(data)
);
