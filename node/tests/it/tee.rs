//! `tee`: policies checked and explained by the program.
//!
//! Owns: exit codes, streams and the form of the output. Must not: repeat the rules' own tests.

use serde_json::{Value, json};

use crate::process::Sandbox;

const EXAMPLE: &str = include_str!("../../attest/testdata/policy.toml");

#[test]
fn a_good_policy_is_checked_and_its_weak_spots_are_named() {
    let sandbox = Sandbox::new();
    sandbox.write("policy.toml", EXAMPLE);
    let printed = sandbox.run(&["tee", "policy", "check", "policy.toml"]).success();
    assert!(printed.starts_with("valid   "), "{printed}");
    assert!(printed.contains("weak    Intel TDX: any machine may run the image"), "{printed}");
    let printed = sandbox.run(&["tee", "policy", "check", "policy.toml", "--json"]).success();
    let checked: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&checked["valid"], &checked["error"]), (&json!(true), &Value::Null));
    assert_eq!(checked["policy"].as_str().unwrap().len(), 64);
    // Who wants no weak spots says so.
    let strict = sandbox.run(&["tee", "policy", "check", "policy.toml", "--strict"]);
    assert_eq!(strict.code, Some(3));
    assert!(strict.stderr.contains("weak spots, 1 in all"), "{}", strict.stderr);
    let named = "allowed_ppid = [\"00112233445566778899aabbccddeeff\"]";
    sandbox.write("strong.toml", &EXAMPLE.replace("allowed_ppid = []", named));
    let printed = sandbox.run(&["tee", "policy", "check", "strong.toml", "--strict"]).success();
    assert!(!printed.contains("weak"), "{printed}");
    // None of this made the data folder.
    assert!(!sandbox.path("home").exists());
}

#[test]
fn a_mistake_in_a_policy_is_named_with_its_line() {
    let sandbox = Sandbox::new();
    let line = 1 + EXAMPLE.lines().position(|line| line.starts_with("allow_smt")).unwrap();
    sandbox.write("policy.toml", &EXAMPLE.replace("allow_smt", "alow_smt"));
    let error = sandbox.run(&["tee", "policy", "check", "policy.toml"]).failure(3);
    for expected in ["`policy.toml` is not valid", "unknown field `alow_smt`", "hint: "] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(error.contains(&format!("line {line}")), "{error}");
    let outcome = sandbox.run(&["tee", "policy", "check", "policy.toml", "--json"]);
    assert_eq!(outcome.code, Some(3));
    let checked: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&checked["valid"], &checked["line"]), (&json!(false), &json!(line)));
    // What cannot be read was not checked.
    let error = sandbox.run(&["tee", "policy", "check", "missing.toml"]).failure(1);
    assert!(error.contains("cannot be read"), "{error}");
    sandbox.run(&["tee", "policy", "check"]).failure(2);
}

#[test]
fn a_policy_is_explained_in_words() {
    let sandbox = Sandbox::new();
    let dev = EXAMPLE.replace("\"production\"", "\"dev\"");
    sandbox.write("policy.toml", &dev);
    let printed = sandbox.run(&["tee", "policy", "explain", "policy.toml"]).success();
    for expected in [
        "\nGeneral\n",
        "\nIntel TDX\n",
        "  WEAK     `trust = \"dev\"`",
        "  accepts  image `cocoon-node-0.1.0` on 2 machine shapes",
        "  denies   every other image",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    let printed = sandbox.run(&["tee", "policy", "explain", "policy.toml", "--json"]).success();
    let explained: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(explained["sections"][0]["statements"][0]["stance"], "weak");
}
