//! Quotes of real hardware and of the simulation, whole, altered, and out of their time.
//!
//! Owns: the verifier's behaviour on fixtures. Must not: use the present.

mod altered;
#[cfg(feature = "dev-tee")]
mod forged;

use super::*;
use cocoon_protocol::attest::{
    Appraisal, Evidence, PlatformRule, Policy, Rules, TdxImage, Tier, Trust,
};
use cocoon_protocol::units::Millis;
use proptest::prelude::*;

use crate::Appraiser;
use crate::appraiser::Judged;

const QUOTE: &[u8] = include_bytes!("../../testdata/dcap/tdx_quote");
const COLLATERAL: &[u8] = include_bytes!("../../testdata/dcap/tdx_quote_collateral.json");
/// A day after the collateral was issued: 2025-06-20T10:16:03Z.
const THEN: Timestamp = Timestamp::from_unix_secs(1_750_414_563);
/// A TDX 1.5 guest's quote, of version 5.
const QUOTE_5: &[u8] = include_bytes!("../../testdata/dcap/tdx_quote_td15ex");
const COLLATERAL_5: &[u8] = include_bytes!("../../testdata/dcap/tdx_quote_td15ex_collateral.json");
/// 2026-10-09T00:09:46Z.
const THEN_5: Timestamp = Timestamp::from_unix_secs(1_791_504_586);
/// Header and report: what a quote's signature covers.
const SIGNED: usize = 632;
const SIGNED_5: usize = 939;

fn real(quote: &[u8], collateral: &[u8], now: Timestamp) -> Result<TdxClaims, Refusal> {
    verify(false, quote, collateral, &Root::intel(), now).map(|v| v.claims)
}

fn genuine() -> TdxClaims {
    real(QUOTE, COLLATERAL, THEN).unwrap()
}

fn rules(measured: &TdxMeasurements) -> TdxRules {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = measured.rtmr;
    TdxRules {
        tcb_status: [TcbStatus::UpToDate].into(),
        reject_advisories: Vec::new(),
        min_tcb_evaluation_data_number: 17,
        max_collateral_age: Millis::from_secs(168 * 3600),
        allow_smt: true,
        allow_dynamic_platform: true,
        allow_cached_keys: true,
        allowed_ppid: Vec::new(),
        images: vec![TdxImage {
            name: "sample".to_owned(),
            mrtd: measured.mrtd,
            rtmr0: vec![rtmr0],
            rtmr1,
            rtmr2,
            rtmr3,
            mr_config_id: Some(measured.mr_config_id),
            mr_owner: Some(measured.mr_owner),
            mr_owner_config: Some(measured.mr_owner_config),
        }],
    }
}

/// Judges the genuine quote by the rules that fit it, changed.
fn judge(
    change: impl FnOnce(&mut TdxRules),
    report_data: &[u8; 64],
    now: Timestamp,
) -> Result<Appraisal, Refusal> {
    let mut rules = rules(&genuine().measurements);
    change(&mut rules);
    let policy =
        Policy::new(Trust::Production, Tier::Open, Rules { tdx: Some(rules), ..Rules::default() })
            .unwrap();
    let evidence = Evidence::Tdx { quote: QUOTE.into() };
    Appraiser::new(policy)
        .judge(&evidence, COLLATERAL, report_data, now)
        .map(|Judged { appraisal, .. }| appraisal)
}

#[test]
fn a_quote_of_real_hardware_is_read() {
    let claims = genuine();
    assert!(!claims.simulated);
    assert_eq!(claims.tcb_status, TcbStatus::UpToDate);
    assert_eq!(claims.attributes, 1 << 28);
    assert_eq!(claims.ppid.len(), 16);
    // This machine, like every real server seen, is a dynamic platform with cached keys and SMT.
    let platform = PlatformFlags { dynamic_platform: true, cached_keys: true, smt: true };
    assert_eq!(claims.platform, platform);
    // The fields are where Intel's specification has them.
    assert_eq!(claims.measurements.mrtd.as_bytes()[..], QUOTE[184..232]);
    assert_eq!(claims.measurements.rtmr[3].as_bytes()[..], QUOTE[520..568]);
    assert_eq!(claims.report_data[..], QUOTE[568..632]);
    assert_eq!(claims.collateral_issued, Timestamp::from_unix_secs(1_750_328_163));
    assert!(claims.collateral_expires > THEN);
}

#[test]
fn a_policy_that_lists_the_image_accepts_it_and_each_rule_can_refuse_it() {
    let bound = genuine().report_data;
    let judged = judge(|_| {}, &bound, THEN).unwrap();
    assert_eq!((judged.tier, judged.image.as_str()), (Tier::Attested, "sample"));

    assert_eq!(judge(|_| {}, &[0; 64], THEN), Err(Refusal::NotFresh));
    let (later, limit) = (THEN.after(Millis::from_secs(24 * 3600)), Millis::from_secs(24 * 3600));
    assert_eq!(
        judge(|rules| rules.max_collateral_age = limit, &bound, later),
        Err(Refusal::CollateralTooOld { age: Millis::from_secs(48 * 3600), limit })
    );
    let newer = u32::MAX;
    assert!(matches!(
        judge(|rules| rules.min_tcb_evaluation_data_number = newer, &bound, THEN),
        Err(Refusal::CollateralOutdated { minimum: u32::MAX, .. })
    ));
    for forbid in [
        |rules: &mut TdxRules| rules.allow_smt = false,
        |rules: &mut TdxRules| rules.allow_dynamic_platform = false,
        |rules: &mut TdxRules| rules.allow_cached_keys = false,
        |rules: &mut TdxRules| rules.allowed_ppid = vec![vec![0; 16]],
    ] {
        let refused = judge(forbid, &bound, THEN);
        assert!(matches!(refused, Err(Refusal::PlatformNotAllowed { .. })), "{refused:?}");
    }
    let unknown = |differs| {
        let value = genuine().measurements.mrtd;
        Err(Refusal::UnknownMeasurement { register: "mrtd", value, differs })
    };
    assert_eq!(judge(|rules| rules.images.clear(), &bound, THEN), unknown(None));
    assert_eq!(
        judge(|rules| rules.images[0].rtmr2 = Register::from_bytes([1; 48]), &bound, THEN),
        unknown(Some("rtmr2"))
    );
}

#[test]
fn a_quote_of_version_5_is_read() {
    let claims = real(QUOTE_5, COLLATERAL_5, THEN_5).unwrap();
    assert_eq!(claims.tcb_status, TcbStatus::UpToDate);
    assert_eq!(claims.tcb_evaluation_data_number, 20);
    // Six bytes further than in version 4: the report says what it is.
    assert_eq!(claims.measurements.mrtd.as_bytes()[..], QUOTE_5[190..238]);
    assert_eq!(claims.measurements.rtmr[3].as_bytes()[..], QUOTE_5[526..574]);
    assert_eq!(claims.report_data[..], QUOTE_5[574..638]);
    assert_eq!(claims.collateral_issued, parse_date("2026-10-07T23:45:11Z").unwrap());
    assert_eq!(claims.collateral_expires, parse_date("2026-11-06T23:45:11Z").unwrap());
}

/// The same platform a year later: what was up to date then has published holes now. Collateral of its
/// own time would hide that, and is refused by its date.
#[test]
fn collateral_of_today_shows_what_yesterday_s_does_not() {
    let claims = real(QUOTE, COLLATERAL_5, THEN_5).unwrap();
    assert_eq!(claims.tcb_status, TcbStatus::OutOfDate);
    assert!(claims.advisories.contains(&"INTEL-SA-01312".to_owned()));
    assert_eq!(real(QUOTE, COLLATERAL, THEN_5), Err(Refusal::CollateralExpired));
    let rules = rules(&claims.measurements);
    let policy = Rules { tdx: Some(rules), ..Rules::default() };
    let policy = Policy::new(Trust::Production, Tier::Open, policy).unwrap();
    let evidence = Evidence::Tdx { quote: QUOTE.into() };
    let judged = Appraiser::new(policy).judge(&evidence, COLLATERAL_5, &claims.report_data, THEN_5);
    let status = TcbStatus::OutOfDate;
    assert_eq!(judged.unwrap_err(), Refusal::TcbOutOfDate { status });
}

#[test]
fn an_outdated_platform_is_refused() {
    let quote = include_bytes!("../../testdata/dcap/tdx_quote_outdated");
    let collateral = include_bytes!("../../testdata/dcap/tdx_quote_outdated_collateral.json");
    let within = parse_date("2026-02-19T10:58:51Z").unwrap();
    let chain = Err(Refusal::QuoteInvalid { check: QuoteCheck::Chain });
    assert_eq!(real(quote, collateral, within), chain);
}

#[test]
fn an_enclave_s_quote_is_no_guest_s() {
    let quote = include_bytes!("../../testdata/dcap/sgx_quote");
    assert_eq!(real(quote, COLLATERAL, THEN), Err(Refusal::Malformed));
}

#[test]
fn every_rule_of_the_policy_refuses_the_genuine_quote() {
    let bound = genuine().report_data;
    let refused = |change: fn(&mut TdxRules)| judge(change, &bound, THEN).unwrap_err();
    assert_eq!(
        refused(|rules| rules.tcb_status = [TcbStatus::SwHardeningNeeded].into()),
        Refusal::TcbOutOfDate { status: TcbStatus::UpToDate }
    );
    let platform = |rule| Refusal::PlatformNotAllowed { rule };
    assert_eq!(refused(|rules| rules.allow_smt = false), platform(PlatformRule::Smt));
    assert_eq!(
        refused(|rules| rules.allow_dynamic_platform = false),
        platform(PlatformRule::DynamicPlatform)
    );
    assert_eq!(
        refused(|rules| rules.allow_cached_keys = false),
        platform(PlatformRule::CachedKeys)
    );
    assert_eq!(
        refused(|rules| rules.allowed_ppid = vec![vec![0; 16]]),
        platform(PlatformRule::Unlisted)
    );
    let own = genuine().ppid;
    assert!(judge(|rules| rules.allowed_ppid = vec![vec![0; 16], own], &bound, THEN).is_ok());

    let other = Register::from_bytes([0xee; 48]);
    type Change = fn(&mut TdxImage, Register);
    let registers: [(&str, Change); 7] = [
        ("rtmr0", |image, other| image.rtmr0 = vec![other]),
        ("rtmr1", |image, other| image.rtmr1 = other),
        ("rtmr2", |image, other| image.rtmr2 = other),
        ("rtmr3", |image, other| image.rtmr3 = other),
        ("mrconfigid", |image, other| image.mr_config_id = Some(other)),
        ("mrowner", |image, other| image.mr_owner = Some(other)),
        ("mrownerconfig", |image, other| image.mr_owner_config = Some(other)),
    ];
    let value = genuine().measurements.mrtd;
    for (name, change) in registers {
        let refusal = Refusal::UnknownMeasurement { register: "mrtd", value, differs: Some(name) };
        let judged = judge(|rules| change(&mut rules.images[0], other), &bound, THEN);
        assert_eq!(judged, Err(refusal));
    }
    assert_eq!(
        judge(|rules| rules.images[0].mrtd = other, &bound, THEN),
        Err(Refusal::UnknownMeasurement { register: "mrtd", value, differs: None })
    );
}

#[test]
fn collateral_is_good_in_its_time_only() {
    let at = |text| parse_date(text).unwrap();
    assert_eq!(THEN, at("2025-06-20T10:16:03Z"));
    assert!(real(QUOTE, COLLATERAL, at("2025-06-19T10:32:27Z")).is_ok());
    assert!(real(QUOTE, COLLATERAL, at("2025-07-19T10:00:34Z")).is_ok());
    let before = real(QUOTE, COLLATERAL, at("2025-06-19T10:32:26Z"));
    assert_eq!(before, Err(Refusal::QuoteInvalid { check: QuoteCheck::Chain }));
    let after = real(QUOTE, COLLATERAL, at("2025-07-19T10:00:35Z"));
    assert_eq!(after, Err(Refusal::CollateralExpired));
}

#[test]
fn collateral_of_another_form_is_refused() {
    let form = Err(Refusal::QuoteInvalid { check: QuoteCheck::CollateralForm });
    for collateral in [&b""[..], b"{}", b"null", b"[", &COLLATERAL[..COLLATERAL.len() - 1]] {
        assert_eq!(real(QUOTE, collateral, THEN), form);
    }
    let oversized = [COLLATERAL, &vec![b' '; limits::ATTEST_RESPONSE_BYTES]].concat();
    assert_eq!(real(QUOTE, &oversized, THEN), form);
}

#[test]
fn dates_are_read_in_intels_form_only() {
    assert_eq!(parse_date("1970-01-01T00:00:01Z"), Some(Timestamp::from_unix_secs(1)));
    for text in ["", "now", "2025-06-20", "2025-06-20T10:16:03+02:00", "1969-12-31T23:59:59Z"] {
        assert_eq!(parse_date(text), None, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_quotes_and_collateral_never_panic(
        quote in prop::collection::vec(any::<u8>(), 0..2_000),
        collateral in ".{0,200}",
    ) {
        prop_assert!(real(&quote, COLLATERAL, THEN).is_err());
        prop_assert!(real(QUOTE, collateral.as_bytes(), THEN).is_err());
    }
}

#[cfg(feature = "dev-tee")]
mod simulated {
    use super::*;
    use crate::Attester as _;
    use crate::attester::report_data;
    use crate::simulated::{SimulatedAttester, SimulatedGuest, anchors};

    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

    fn quoted(guest: SimulatedGuest) -> (Vec<u8>, Vec<u8>) {
        let quoted = SimulatedAttester::new(guest).quote(&report_data(7), NOW).unwrap();
        (quoted.evidence.quote().to_vec(), quoted.endorsements.to_vec())
    }

    fn simulated(quote: &[u8], collateral: &[u8], now: Timestamp) -> Result<TdxClaims, Refusal> {
        let root = anchors().unwrap().tdx;
        verify(true, quote, collateral, &root, now).map(|v| v.claims)
    }

    #[test]
    fn each_root_refuses_the_other_s_quotes() {
        let (quote, collateral) = quoted(SimulatedGuest::default());
        assert!(simulated(&quote, &collateral, NOW).is_ok());
        assert_eq!(real(&quote, &collateral, NOW), Err(Refusal::UntrustedRoot));
        assert_eq!(simulated(QUOTE, COLLATERAL, THEN), Err(Refusal::UntrustedRoot));
        // The right name is not the right key.
        let intel_by_name =
            Root { common_name: crate::simulated::ROOT_COMMON_NAME, ..Root::intel() };
        let refused = verify(false, &quote, &collateral, &intel_by_name, NOW).map(|v| v.claims);
        assert_eq!(refused, Err(Refusal::QuoteInvalid { check: QuoteCheck::Chain }));
    }

    #[test]
    fn the_simulation_claims_what_it_was_told() {
        let guest =
            SimulatedGuest { tcb_status: TcbStatus::OutOfDate, ..SimulatedGuest::default() };
        let (quote, collateral) = quoted(guest);
        let claims = simulated(&quote, &collateral, NOW).unwrap();
        assert_eq!(claims.measurements, guest.measurements);
        assert_eq!(claims.tcb_status, TcbStatus::OutOfDate);
        assert_eq!(claims.tcb_evaluation_data_number, guest.tcb_evaluation_data_number);
        assert_eq!(claims.report_data, *report_data(7).as_bytes());
    }

    #[test]
    fn guests_without_their_protections_are_refused() {
        let with = |attributes| {
            let (quote, collateral) =
                quoted(SimulatedGuest { attributes, ..SimulatedGuest::default() });
            simulated(&quote, &collateral, NOW).map(|_| ())
        };
        let honest = 1 << 28;
        assert_eq!(with(honest), Ok(()));
        assert_eq!(with(honest | 1), Err(Refusal::Debug));
        assert_eq!(with(honest | 1 << 5), Err(Refusal::Debug));
        assert_eq!(with(honest | 1 << 29), Err(Refusal::Migratable));
        let attributes = Err(Refusal::QuoteInvalid { check: QuoteCheck::Attributes });
        assert_eq!(with(0), attributes);
        assert_eq!(with(honest | 1 << 40), attributes);
    }

    #[test]
    fn a_revoked_platform_is_refused_before_any_policy() {
        let guest = SimulatedGuest { tcb_status: TcbStatus::Revoked, ..SimulatedGuest::default() };
        let (quote, collateral) = quoted(guest);
        let chain = Err(Refusal::QuoteInvalid { check: QuoteCheck::Chain });
        assert_eq!(simulated(&quote, &collateral, NOW), chain);
    }

    #[test]
    fn simulated_collateral_ends_after_thirty_days() {
        let (quote, collateral) = quoted(SimulatedGuest::default());
        let later = NOW.after(Millis::from_secs(31 * 24 * 3600));
        assert_eq!(simulated(&quote, &collateral, later), Err(Refusal::CollateralExpired));
    }
}
