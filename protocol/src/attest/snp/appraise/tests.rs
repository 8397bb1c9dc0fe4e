//! Each check of the appraisal, passed at its limit and failed just beyond.

use super::*;
use crate::attest::claims::Claims;
use crate::attest::measurement::Register;
use crate::attest::policy::{Policy, Rules, Trust};
use crate::attest::snp::SnpProduct;
use crate::units::Millis;

const REPORT_DATA: [u8; 64] = [7; 64];
const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);
const DAY: Millis = Millis::from_secs(86_400);
const TCB: SnpTcb = SnpTcb { fmc: 1, boot_loader: 3, tee: 2, snp: 8, microcode: 115 };

fn register(byte: u8) -> Register {
    Register::from_bytes([byte; 48])
}

fn image() -> SnpImage {
    SnpImage {
        name: "test".to_owned(),
        measurement: register(1),
        vcpus: Some(4),
        host_data: None,
        id_key_digest: None,
        author_key_digest: None,
        min_guest_svn: 5,
    }
}

fn rules() -> SnpRules {
    SnpRules {
        products: [SnpProduct::Turin].into(),
        min_tcb: [(SnpProduct::Turin, TCB)].into(),
        min_launch_tcb: [].into(),
        asvk: [].into(),
        max_vmpl: 1,
        max_crl_age: DAY,
        allow_smt: false,
        require_single_socket: false,
        require_ciphertext_hiding: false,
        require_alias_check: false,
        allowed_chip_id: Vec::new(),
        images: vec![image()],
    }
}

fn claims() -> SnpClaims {
    SnpClaims {
        simulated: false,
        product: SnpProduct::Turin,
        signing_key: SnpSigningKey::Vcek,
        vmpl: 1,
        guest_policy: POLICY_ONE | 0x0130,
        platform_info: 0,
        measurements: SnpMeasurements {
            measurement: register(1),
            host_data: HostData::ZERO,
            id_key_digest: register(2),
            author_key_digest: register(3),
            guest_svn: 5,
        },
        report_data: REPORT_DATA,
        reported_tcb: TCB,
        launch_tcb: TCB,
        chip_id: [9; 64],
        crl_issued: Timestamp::from_unix_secs(1_800_000_000 - 86_400),
        endorsements_expire: NOW,
    }
}

/// Through the whole decision, as `node/attest` asks for it.
fn judge_under(
    trust: Trust,
    claims: &SnpClaims,
    snp: Option<SnpRules>,
) -> Result<Appraisal, Refusal> {
    let rules = Rules { snp, ..Rules::default() };
    let policy = Policy::new(trust, Tier::Open, rules).unwrap();
    crate::attest::appraise(&Claims::Snp(claims.clone()), &policy, &REPORT_DATA, NOW)
}

fn judge(change: impl FnOnce(&mut SnpClaims)) -> Result<Appraisal, Refusal> {
    judge_with(change, |_| {})
}

fn judge_with(
    change: impl FnOnce(&mut SnpClaims),
    tighten: impl FnOnce(&mut SnpRules),
) -> Result<Appraisal, Refusal> {
    let (mut claims, mut rules) = (claims(), rules());
    change(&mut claims);
    tighten(&mut rules);
    judge_under(Trust::Production, &claims, Some(rules))
}

fn platform(rule: PlatformRule) -> Result<Appraisal, Refusal> {
    Err(Refusal::PlatformNotAllowed { rule })
}

#[test]
fn claims_at_every_limit_pass() {
    let expected = Appraisal { tier: Tier::Attested, image: "test".to_owned(), expires: NOW };
    assert_eq!(judge(|_| {}), Ok(expected));
}

#[test]
fn simulated_needs_a_dev_policy() {
    let simulated = SnpClaims { simulated: true, ..claims() };
    let under = |trust| judge_under(trust, &simulated, Some(rules()));
    assert_eq!(under(Trust::Production), Err(Refusal::SimulatedNotAllowed));
    assert!(under(Trust::Dev).is_ok());
    let debug = SnpClaims { guest_policy: claims().guest_policy | POLICY_DEBUG, ..simulated };
    assert_eq!(judge_under(Trust::Dev, &debug, Some(rules())), Err(Refusal::Debug));
}

#[test]
fn debug_and_migration_are_refused() {
    assert_eq!(judge(|c| c.guest_policy |= POLICY_DEBUG), Err(Refusal::Debug));
    assert_eq!(judge(|c| c.guest_policy |= POLICY_MIGRATE), Err(Refusal::Migratable));
}

#[test]
fn unknown_bits_of_the_guest_policy_are_refused() {
    let form = Err(Refusal::ReportInvalid { check: SnpCheck::GuestPolicyForm });
    assert_eq!(judge(|c| c.guest_policy &= !POLICY_ONE), form);
    for bit in 26..64 {
        assert_eq!(judge(|c| c.guest_policy |= 1 << bit), form, "bit {bit}");
    }
    for bit in 20..26 {
        assert!(judge(|c| c.guest_policy |= 1 << bit).is_ok(), "bit {bit}");
    }
}

#[test]
fn report_data_is_compared() {
    assert_eq!(judge(|c| c.report_data[63] ^= 1), Err(Refusal::NotFresh));
}

#[test]
fn vmpl_beyond_the_policy_is_refused() {
    assert!(judge(|c| c.vmpl = 0).is_ok());
    assert_eq!(judge(|c| c.vmpl = 2), Err(Refusal::VmplTooLow { vmpl: 2, limit: 1 }));
    assert!(judge(|c| c.vmpl = u32::MAX).is_err());
}

#[test]
fn a_product_that_is_not_listed_is_refused() {
    for product in [SnpProduct::Milan, SnpProduct::Genoa] {
        assert_eq!(judge(|c| c.product = product), platform(PlatformRule::Product));
    }
}

#[test]
fn every_component_of_both_firmware_levels_has_its_floor() {
    type Component = fn(&mut SnpTcb) -> &mut u8;
    let components: [(&str, Component); 5] = [
        ("fmc", |tcb| &mut tcb.fmc),
        ("bl", |tcb| &mut tcb.boot_loader),
        ("tee", |tcb| &mut tcb.tee),
        ("snp", |tcb| &mut tcb.snp),
        ("ucode", |tcb| &mut tcb.microcode),
    ];
    for (component, field) in components {
        let minimum = *field(&mut TCB.clone());
        let low =
            |moment| Err(Refusal::TcbTooLow { moment, component, found: minimum - 1, minimum });
        assert_eq!(judge(|c| *field(&mut c.reported_tcb) -= 1), low(TcbMoment::Now));
        assert_eq!(judge(|c| *field(&mut c.launch_tcb) -= 1), low(TcbMoment::Launch));
        // Nothing else makes up for it.
        let others = |c: &mut SnpClaims| {
            c.reported_tcb =
                SnpTcb { fmc: 255, boot_loader: 255, tee: 255, snp: 255, microcode: 255 };
            *field(&mut c.reported_tcb) = minimum - 1;
        };
        assert_eq!(judge(others), low(TcbMoment::Now));
    }
}

#[test]
fn a_launch_level_of_its_own_replaces_the_floor_at_launch_only() {
    let lower = SnpTcb { microcode: 100, ..TCB };
    let own = |rules: &mut SnpRules| {
        rules.min_launch_tcb.insert(SnpProduct::Turin, lower);
    };
    assert!(judge_with(|c| c.launch_tcb = lower, own).is_ok());
    assert!(judge_with(|c| c.reported_tcb = lower, own).is_err());
    assert!(judge_with(|c| c.launch_tcb.microcode = 99, own).is_err());
}

#[test]
fn expired_endorsements_are_refused() {
    let past = Timestamp::from_unix_secs(1_799_999_999);
    assert_eq!(judge(|c| c.endorsements_expire = past), Err(Refusal::CollateralExpired));
}

#[test]
fn an_old_revocation_list_is_refused_before_it_expires() {
    let issued = Timestamp::from_unix_secs(1_800_000_000 - 86_401);
    let refused = judge(|c| (c.crl_issued, c.endorsements_expire) = (issued, Timestamp::MAX));
    let age = Millis::from_secs(86_401);
    assert_eq!(refused, Err(Refusal::RevocationListTooOld { age, limit: DAY }));
}

#[test]
fn an_acceptance_ends_with_the_endorsements_and_with_the_list_s_age() {
    let issued_now = judge(|c| (c.crl_issued, c.endorsements_expire) = (NOW, Timestamp::MAX));
    assert_eq!(issued_now.map(|a| a.expires), Ok(NOW.after(DAY)));
    let soon = NOW.after(Millis::new(1));
    let short = judge(|c| (c.crl_issued, c.endorsements_expire) = (NOW, soon));
    assert_eq!(short.map(|a| a.expires), Ok(soon));
}

#[test]
fn a_vlek_needs_an_asvk_of_its_product() {
    let vlek = |c: &mut SnpClaims| c.signing_key = SnpSigningKey::Vlek;
    assert_eq!(judge(vlek), platform(PlatformRule::Vlek));
    let of_turin = judge_with(vlek, |r| _ = r.asvk.insert(SnpProduct::Turin, vec![1]));
    assert!(of_turin.is_ok());
    let of_milan = judge_with(vlek, |r| {
        r.products.insert(SnpProduct::Milan);
        r.min_tcb.insert(SnpProduct::Milan, SnpTcb::default());
        r.asvk.insert(SnpProduct::Milan, vec![1]);
    });
    assert_eq!(of_milan, platform(PlatformRule::Vlek));
}

#[test]
fn hyper_threading_allowed_to_the_guest_or_on_the_platform_is_refused() {
    let allow = |r: &mut SnpRules| r.allow_smt = true;
    let guest = |c: &mut SnpClaims| c.guest_policy |= POLICY_SMT;
    let host = |c: &mut SnpClaims| c.platform_info |= PLATFORM_SMT;
    assert_eq!(judge(guest), platform(PlatformRule::Smt));
    assert_eq!(judge(host), platform(PlatformRule::Smt));
    assert!(judge_with(guest, allow).is_ok() && judge_with(host, allow).is_ok());
}

#[test]
fn demanded_protections_must_be_there() {
    type Demand = fn(&mut SnpRules);
    type Meet = fn(&mut SnpClaims);
    let cases: [(PlatformRule, Demand, Meet); 3] = [
        (
            PlatformRule::SingleSocket,
            |r| r.require_single_socket = true,
            |c| c.guest_policy |= POLICY_SINGLE_SOCKET,
        ),
        (
            PlatformRule::CiphertextHiding,
            |r| r.require_ciphertext_hiding = true,
            |c| c.platform_info |= PLATFORM_CIPHERTEXT_HIDING,
        ),
        (
            PlatformRule::AliasCheck,
            |r| r.require_alias_check = true,
            |c| c.platform_info |= PLATFORM_ALIAS_CHECK,
        ),
    ];
    for (rule, demand, meet) in cases {
        assert_eq!(judge_with(|_| {}, demand), platform(rule));
        assert!(judge_with(meet, demand).is_ok(), "{rule:?}");
    }
}

#[test]
fn listed_chips_exclude_all_others() {
    let listing = |chips: Vec<[u8; 64]>| judge_with(|_| {}, |r| r.allowed_chip_id = chips);
    assert_eq!(listing(vec![[8; 64]]), platform(PlatformRule::UnlistedChip));
    assert!(listing(vec![[8; 64], [9; 64]]).is_ok());
}

#[test]
fn an_unlisted_measurement_and_an_empty_list_are_refused() {
    let other = judge(|c| c.measurements.measurement = register(0xee));
    let (register, value) = ("measurement", register(0xee));
    assert_eq!(other, Err(Refusal::UnknownMeasurement { register, value, differs: None }));
    let denied = Err(unknown(&claims().measurements, None));
    assert_eq!(judge_with(|_| {}, |r| r.images.clear()), denied);
    assert_eq!(judge_under(Trust::Production, &claims(), None), denied);
}

#[test]
fn host_data_must_be_zero_or_what_is_listed() {
    let set = HostData::from_bytes([4; 32]);
    let differs = Err(unknown(&claims().measurements, Some("host_data")));
    assert_eq!(judge(|c| c.measurements.host_data = set), differs);
    let list = |r: &mut SnpRules| r.images[0].host_data = Some(set);
    assert!(judge_with(|c| c.measurements.host_data = set, list).is_ok());
    assert_eq!(judge_with(|_| {}, list), differs);
}

#[test]
fn listed_identity_keys_are_compared() {
    let differs = |field| Err(unknown(&claims().measurements, Some(field)));
    let id = |byte| judge_with(|_| {}, |r| r.images[0].id_key_digest = Some(register(byte)));
    assert!(id(2).is_ok());
    assert_eq!(id(3), differs("id_key_digest"));
    let author =
        |byte| judge_with(|_| {}, |r| r.images[0].author_key_digest = Some(register(byte)));
    assert!(author(3).is_ok());
    assert_eq!(author(2), differs("author_key_digest"));
}

#[test]
fn an_old_version_of_the_guest_is_refused_unless_another_entry_takes_it() {
    let old = |c: &mut SnpClaims| c.measurements.guest_svn = 4;
    assert_eq!(judge(old), Err(Refusal::GuestVersionTooLow { found: 4, minimum: 5 }));
    let second = |r: &mut SnpRules| {
        r.images.push(SnpImage { name: "old".to_owned(), min_guest_svn: 4, ..image() });
    };
    assert_eq!(judge_with(old, second).map(|a| a.image), Ok("old".to_owned()));
}
