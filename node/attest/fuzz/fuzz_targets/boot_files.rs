//! `cocoon_attest::fuzzing::boot_files` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_fuzz::begin("boot_files"),
    |data: &[u8]| cocoon_attest::fuzzing::boot_files(data)
);
