//! Every byte of a report and its endorsements, altered, and every truncation of them.
//!
//! Owns: that nothing altered is believed: there is no byte in report, certificates, list or their
//! framing that could be another one. Must not: know which byte means what.

use super::*;
use proptest::prelude::*;

/// Both parts of the evidence, honest.
struct Whole {
    report: Vec<u8>,
    endorsements: Vec<u8>,
    roots: Roots,
}

impl Whole {
    fn new() -> Self {
        let case = Case::honest();
        let endorsements = case.endorsements();
        let whole = Self { report: case.report.clone(), endorsements, roots: case.roots() };
        assert!(whole.judge(&whole.report, &whole.endorsements).is_ok());
        whole
    }

    fn judge(&self, report: &[u8], endorsements: &[u8]) -> Result<SnpClaims, Refusal> {
        verify(true, report, endorsements, &self.roots, &Asvk::new(), NOW)
    }

    /// Every byte changed by each of `masks`, in both parts.
    fn assert_no_alteration_is_believed(&self, masks: impl Iterator<Item = u8> + Clone) -> usize {
        let mut tried = 0;
        let mut altered = self.report.clone();
        for position in 0..altered.len() {
            for mask in masks.clone() {
                altered[position] ^= mask;
                let judged = self.judge(&altered, &self.endorsements);
                assert!(judged.is_err(), "byte {position} of the report, mask {mask:#x}");
                altered[position] ^= mask;
                tried += 1;
            }
        }
        let mut altered = self.endorsements.clone();
        for position in 0..altered.len() {
            for mask in masks.clone() {
                altered[position] ^= mask;
                let judged = self.judge(&self.report, &altered);
                assert!(judged.is_err(), "byte {position} of the endorsements, mask {mask:#x}");
                altered[position] ^= mask;
                tried += 1;
            }
        }
        tried
    }
}

#[test]
fn no_altered_byte_is_believed() {
    let whole = Whole::new();
    let tried = whole.assert_no_alteration_is_believed([0x01].into_iter());
    assert_eq!(tried, whole.report.len() + whole.endorsements.len());
}

/// All 255 values of every byte: some minutes, so not with the others. Run it with
/// `cargo test -p cocoon-attest --features dev-tee -- --ignored no_altered_value`.
#[test]
#[ignore = "takes minutes; the test above tries one value of every byte"]
fn no_altered_value_is_believed() {
    let tried = Whole::new().assert_no_alteration_is_believed(1..=255);
    println!("{tried} alterations refused");
}

#[test]
fn no_truncation_is_believed() {
    let whole = Whole::new();
    for length in 0..whole.report.len() {
        let judged = whole.judge(&whole.report[..length], &whole.endorsements);
        assert_eq!(judged, Err(Refusal::Malformed));
    }
    for length in 0..whole.endorsements.len() {
        let judged = whole.judge(&whole.report, &whole.endorsements[..length]);
        assert_eq!(judged, Err(invalid(SnpCheck::EndorsementForm)));
    }
    let honest = Case::honest();
    type Part = fn(&mut Case) -> &mut Vec<u8>;
    let parts: [Part; 3] = [|case| &mut case.vek, |case| &mut case.ask, |case| &mut case.crl];
    for part in parts {
        let length = part(&mut honest.clone()).len();
        for length in 0..length {
            let mut case = honest.clone();
            part(&mut case).truncate(length);
            let judged = whole.judge(&case.report, &case.endorsements());
            assert!(judged.is_err(), "length {length}");
        }
    }
}

#[test]
fn nothing_may_follow() {
    let whole = Whole::new();
    let longer = |bytes: &[u8]| [bytes, &[0]].concat();
    assert!(whole.judge(&longer(&whole.report), &whole.endorsements).is_err());
    assert!(whole.judge(&whole.report, &longer(&whole.endorsements)).is_err());
    let honest = Case::honest();
    for case in [
        Case { vek: longer(&honest.vek), ..honest.clone() },
        Case { ask: longer(&honest.ask), ..honest.clone() },
        Case { crl: longer(&honest.crl), ..honest.clone() },
    ] {
        assert!(case.verify().is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_never_panic(
        report in prop::collection::vec(any::<u8>(), 0..1_300),
        part in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let honest = Case::honest();
        let random = Case { report, ..honest.clone() };
        prop_assert!(random.verify().is_err());
        for random in [
            Case { vek: part.clone(), ..honest.clone() },
            Case { ask: part.clone(), ..honest.clone() },
            Case { crl: part.clone(), ..honest.clone() },
        ] {
            prop_assert!(random.verify().is_err());
        }
        let judged = verify(true, &honest.report, &part, &honest.roots(), &honest.asvk, NOW);
        prop_assert!(judged.is_err());
    }
}
