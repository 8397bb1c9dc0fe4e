//! Genuine evidence with a byte changed or the end cut off.
//!
//! Owns: that none of it is accepted and nothing panics.
//! Must not: take long by default: a sample runs; `COCOON_TEST_EXHAUSTIVE=1` runs all.

use super::*;

/// Every byte with each of its bits flipped, and all of them.
const MASKS: [u8; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 255];
/// Bytes between those that the sample takes; prime, so that it falls on every kind of field.
const STRIDE: usize = 13;

fn with_byte(bytes: &Bytes, position: usize, mask: u8) -> Bytes {
    let mut changed = bytes.to_vec();
    changed[position] ^= mask;
    Bytes::from(changed)
}

/// The positions and masks to try on something of `length` bytes.
fn changes(length: usize) -> Vec<(usize, u8)> {
    let all = (0..length).flat_map(|position| MASKS.map(|mask| (position, mask)));
    if std::env::var_os("COCOON_TEST_EXHAUSTIVE").is_some() {
        return all.collect();
    }
    all.step_by(STRIDE * MASKS.len() + 1).collect()
}

#[test]
fn no_changed_byte_is_accepted() {
    let root = root();
    let mut tried = 0;
    for genuine in [hopper(), blackwell()] {
        for (position, mask) in changes(genuine.report.len()) {
            let report = with_byte(&genuine.report, position, mask);
            let changed = GpuEvidence { report, ..genuine.clone() };
            assert!(verify(&changed, &root, NOW).is_err(), "report {position} ^ {mask:#x}");
            tried += 1;
        }
        for (position, mask) in changes(genuine.chain.len()) {
            let chain = with_byte(&genuine.chain, position, mask);
            let changed = GpuEvidence { chain, ..genuine.clone() };
            assert!(verify(&changed, &root, NOW).is_err(), "chain {position} ^ {mask:#x}");
            tried += 1;
        }
    }
    println!("{tried} changes, none accepted");
}

#[test]
fn no_truncation_and_no_appended_byte_is_accepted() {
    let root = root();
    for genuine in [hopper(), blackwell()] {
        for end in 0..genuine.report.len() {
            let cut = GpuEvidence { report: genuine.report.slice(..end), ..genuine.clone() };
            let refused = verify(&cut, &root, NOW);
            assert!(matches!(refused, Err(GpuRefusal::Report { .. })), "report {end}");
        }
        for end in 0..genuine.chain.len() {
            let cut = GpuEvidence { chain: genuine.chain.slice(..end), ..genuine.clone() };
            let refused = verify(&cut, &root, NOW);
            let form = matches!(
                refused,
                Err(GpuRefusal::Certificates { .. } | GpuRefusal::ChainLength { .. })
            );
            assert!(form, "chain {end}: {refused:?}");
        }
        let longer = Bytes::from([&genuine.report[..], &[0]].concat());
        assert!(verify(&GpuEvidence { report: longer, ..genuine.clone() }, &root, NOW).is_err());
        let longer = Bytes::from([&genuine.chain[..], &[0]].concat());
        assert!(verify(&GpuEvidence { chain: longer, ..genuine }, &root, NOW).is_err());
    }
}

proptest::proptest! {
    #[test]
    fn random_reports_and_chains_never_panic(
        report in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600),
        chain in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600),
    ) {
        let random = GpuEvidence { report: report.into(), ..hopper() };
        proptest::prop_assert!(verify(&random, &root(), NOW).is_err());
        let random = GpuEvidence { chain: chain.into(), ..hopper() };
        proptest::prop_assert!(verify(&random, &root(), NOW).is_err());
    }
}
