//! The image's parsers of what its host hands over, under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: cocoon_init_fuzz::begin(),
    |data: &[u8]| cocoon_init_fuzz::host_inputs(data)
);
