//! The rules as a person writes them, whole and with each mistake.

use super::*;
use crate::attest::policy::Policy;
use serde_json::{Value, json};

/// `openssl x509` writes this form; the bytes are no certificate, which is not for here to say.
const PEM: &str = "-----BEGIN CERTIFICATE-----\nAQID\nBAU=\n-----END CERTIFICATE-----\n";

fn file() -> Value {
    json!({
        "version": 1,
        "trust": "production",
        "snp": {
            "products": ["Milan", "Turin"],
            "min_tcb": {
                "Milan": { "bl": 3, "tee": 0, "snp": 8, "ucode": 115 },
                "Turin": { "fmc": 1, "bl": 1, "tee": 1, "snp": 4, "ucode": 1 },
            },
            "max_crl_age_d": 30,
            "image": [{ "name": "cocoon-node-0.1.0", "measurement": hex::encode([1; 48]) }],
        },
    })
}

fn parse(file: Value) -> Result<Policy, String> {
    serde_json::from_value(file).map_err(|error| error.to_string())
}

/// The file with the value at `path` replaced, or removed by `Null`.
fn with(path: &str, value: Value) -> Value {
    changed(file(), path, value)
}

fn changed(mut file: Value, path: &str, value: Value) -> Value {
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = file.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(key);
    } else {
        parent.insert(key.to_owned(), value);
    }
    file
}

fn with_asvk(product: &str, text: &str) -> Value {
    changed(with("/snp/vlek", json!(true)), "/snp/asvk", json!({ product: text }))
}

#[test]
fn a_whole_policy_is_understood() {
    let policy = parse(file()).unwrap();
    let rules = policy.snp().unwrap();
    assert!(policy.tdx().is_none());
    assert_eq!(rules.max_crl_age, Millis::from_secs(30 * 86_400));
    assert_eq!(rules.min_tcb[&SnpProduct::Turin].fmc, 1);
    assert_eq!(rules.min_tcb[&SnpProduct::Milan].microcode, 115);
    assert_eq!((rules.max_vmpl, rules.allow_smt), (0, false));
    assert_eq!(rules.images[0].min_guest_svn, 0);

    let wide = "ab".repeat(64);
    let chips = with("/snp/allowed_chip_id", json!([wide, "0102030405060708"]));
    let mut turin = [0; 64];
    turin[..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let policy = parse(chips).unwrap();
    assert_eq!(policy.snp().unwrap().allowed_chip_id, [[0xab; 64], turin]);

    let policy = parse(with_asvk("Milan", PEM)).unwrap();
    assert_eq!(policy.snp().unwrap().asvk[&SnpProduct::Milan], [1, 2, 3, 4, 5]);
}

#[test]
fn mistakes_are_refused_and_named() {
    let image = file().pointer("/snp/image/0").unwrap().clone();
    let cases = [
        ("/snp/products", json!([]), "`products` is empty"),
        ("/snp/products", json!(["Rome"]), "unknown variant `Rome`"),
        ("/snp/products", json!(["Milan"]), "[snp.min_tcb] names Turin"),
        ("/snp/products", Value::Null, "missing field `products`"),
        ("/snp/min_tcb/Turin", Value::Null, "no [snp.min_tcb.Turin]"),
        ("/snp/min_tcb/Milan/ucode", Value::Null, "missing field `ucode`"),
        ("/snp/min_tcb/Milan/ucode", json!(256), "invalid value"),
        ("/snp/min_tcb/Milan/fmc", json!(1), "Milan does not have"),
        ("/snp/min_tcb/Milan/microcode", json!(1), "unknown field `microcode`"),
        ("/snp/min_launch_tcb", json!({ "Genoa": {"bl":0,"tee":0,"snp":0,"ucode":0} }), "Genoa"),
        ("/snp/max_crl_age_d", json!(0), "between 1 and 366"),
        ("/snp/max_crl_age_d", json!(u64::MAX), "between 1 and 366"),
        ("/snp/max_crl_age_d", Value::Null, "missing field"),
        ("/snp/max_vmpl", json!(4), "between 0 and 3"),
        ("/snp/vlek", json!(true), "need each other"),
        ("/snp/asvk", json!({ "Milan": PEM }), "need each other"),
        ("/snp/allowed_chip_id", json!(["00"]), "128 hexadecimal digits"),
        ("/snp/allowed_chip_id", json!(["zz".repeat(64)]), "128 hexadecimal digits"),
        ("/snp/alow_smt", json!(true), "unknown field `alow_smt`"),
        ("/snp/image", json!([image, image]), "listed twice"),
        ("/snp/image/0/measurement", json!(hex::encode([0; 48])), "measurement of zeros"),
        ("/snp/image/0/measurement", json!("ab"), "96 hexadecimal digits"),
        ("/snp/image/0/measurement", Value::Null, "missing field `measurement`"),
        ("/snp/image/0/host_data", json!("ab"), "64 hexadecimal digits"),
        ("/snp/image/0/mrtd", json!("ab"), "unknown field `mrtd`"),
    ];
    for (path, value, expected) in cases {
        let error = parse(with(path, value)).expect_err(path);
        assert!(error.contains(expected), "{path}: {error}");
    }
    for text in
        ["", "AQID", &PEM.replace("AQID", "AQ*D"), &PEM.replace("AQID\nBAU=", ""), &PEM.repeat(2)]
    {
        let error = parse(with_asvk("Milan", text)).unwrap_err();
        assert!(error.contains("not the PEM text"), "{text}: {error}");
    }
    assert!(parse(with_asvk("Genoa", PEM)).unwrap_err().contains("[snp.asvk] names Genoa"));
}

#[test]
fn every_rule_changes_the_identity_and_an_explicit_zero_does_not() {
    let base = parse(file()).unwrap().id();
    let other = json!(hex::encode([9; 48]));
    let level = json!({ "bl": 1, "tee": 0, "snp": 8, "ucode": 115 });
    let changes = [
        with("/snp/min_tcb/Milan/bl", json!(4)),
        with("/snp/min_tcb/Milan/tee", json!(1)),
        with("/snp/min_tcb/Milan/snp", json!(9)),
        with("/snp/min_tcb/Milan/ucode", json!(116)),
        with("/snp/min_tcb/Turin/fmc", json!(2)),
        with("/snp/min_launch_tcb", json!({ "Milan": level })),
        with("/snp/min_launch_tcb", json!({ "Turin": level })),
        with("/snp/max_crl_age_d", json!(31)),
        with("/snp/max_vmpl", json!(1)),
        with("/snp/allow_smt", json!(true)),
        with("/snp/require_single_socket", json!(true)),
        with("/snp/require_ciphertext_hiding", json!(true)),
        with("/snp/require_alias_check", json!(true)),
        with("/snp/allowed_chip_id", json!(["00".repeat(64)])),
        with_asvk("Milan", PEM),
        with_asvk("Turin", PEM),
        with_asvk("Milan", &PEM.replace("AQID", "AQIE")),
        with("/snp/image", json!([])),
        with("/snp/image/0/name", json!("other")),
        with("/snp/image/0/measurement", other.clone()),
        with("/snp/image/0/vcpus", json!(4)),
        with("/snp/image/0/host_data", json!(hex::encode([9; 32]))),
        with("/snp/image/0/id_key_digest", other.clone()),
        with("/snp/image/0/author_key_digest", other),
        with("/snp/image/0/min_guest_svn", json!(1)),
        with("/snp", Value::Null),
    ];
    let mut ids = BTreeSet::from([base]);
    for change in changes {
        assert!(ids.insert(parse(change.clone()).unwrap().id()), "{change}");
    }
    let zero = with("/snp/image/0/host_data", json!(hex::encode([0; 32])));
    assert_eq!(parse(zero).unwrap().id(), base);
    // A key digest of zeros demands that there is no key; none given demands nothing.
    let keyless = with("/snp/image/0/id_key_digest", json!(hex::encode([0; 48])));
    assert_ne!(parse(keyless).unwrap().id(), base);
}
