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

/// A machine's files below a folder, as far as they are looked at.
fn machine(sandbox: &Sandbox, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = sandbox.path(&format!("machine/{name}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

#[test]
fn what_a_machine_can_prove_is_said_step_by_step() {
    let sandbox = Sandbox::new();
    machine(
        &sandbox,
        &[
            ("proc/sys/kernel/osrelease", "6.1.0-amd64\n"),
            ("proc/cpuinfo", "vendor_id : AuthenticAMD\nflags : hypervisor sev_snp\n"),
            ("proc/self/status", "Uid:\t0\t0\t0\t0\n"),
        ],
    );
    let detect = ["tee", "detect", "--root", "machine"];
    let printed = sandbox.run(&detect).success();
    for expected in [
        "guest driver  MISSING  neither /dev/tdx_guest nor /dev/sev-guest\n",
        "-> `modprobe sev-guest` in a SEV-SNP guest\n",
        "This machine can prove nothing about itself",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }

    machine(&sandbox, &[("dev/sev-guest", "")]);
    let printed = sandbox.run(&[&detect[..], &["--json"]].concat()).success();
    let found: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        (&found["proves"], &found["through"], &found["tier"]),
        (&json!("snp"), &json!("/dev/sev-guest"), &json!("attested"))
    );
    assert_eq!(found["steps"][2]["name"], "guest driver");
    assert_eq!(found["steps"][2]["standing"], "good");
    // None of this made the data folder.
    assert!(!sandbox.path("home").exists());
}

#[test]
fn services_are_tried_only_when_that_is_asked() {
    let sandbox = Sandbox::new();
    machine(&sandbox, &[]);
    // Nobody listens on a port that was bound and dropped.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let detect = ["tee", "detect", "--root", "machine", "--intel-pcs", &url, "--amd-kds", &url];
    assert!(!sandbox.run(&detect).success().contains("PCS"));
    let printed = sandbox.run(&[&detect[..], &["--online"]].concat()).success();
    assert!(printed.contains("Intel's PCS   lacking"), "{printed}");
    assert!(printed.contains("AMD's KDS     lacking"), "{printed}");
}

#[test]
fn evidence_that_cannot_be_made_stops_a_provider_that_was_asked_for_it() {
    let sandbox = Sandbox::new();
    let found = sandbox.run(&["tee", "detect", "--json"]).success();
    let found: Value = serde_json::from_str(&found).unwrap();
    // Whatever this machine is, it is not both.
    let (kind, words) = if found["proves"] == "tdx" { ("snp", "SEV-SNP") } else { ("tdx", "TDX") };
    let listen = ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--log", "error"];
    let provide = ["--provide", "--engine", "echo", "--attester", kind];
    let error = sandbox.run(&[&provide[..], &listen].concat()).failure(1);
    assert!(error.contains(&format!("`attester` asks for {words}, and this machine")), "{error}");
    assert!(error.contains("hint: `cocoon-node tee detect` says what"), "{error}");
    let error = sandbox.run(&["tee", "record", "e.json", "--attester", kind]).failure(1);
    assert!(error.contains("this machine"), "{error}");
    assert!(!sandbox.path("e.json").exists());
}

#[test]
fn a_record_is_a_file_and_an_entry_of_a_policy() {
    let sandbox = Sandbox::new();
    let record = ["tee", "record", "e.json", "--attester", "simulated", "--name", "mine"];
    let outcome = sandbox.run(&record);
    assert!(outcome.stderr.contains("nothing is verified yet"), "{}", outcome.stderr);
    let entry = outcome.success();
    assert!(entry.starts_with("[[tdx.image]]\nname = \"mine\"\nmrtd = \"4e4f5420"), "{entry}");
    let text = std::fs::read_to_string(sandbox.path("e.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&file["cocoon_evidence"], &file["kind"]), (&json!(1), &json!("simulated-tdx")));
    assert!(file["record"]["nonce"].as_str().unwrap().len() == 64);

    // A file that is there stays, unless it is meant.
    let error = sandbox.run(&record).failure(1);
    assert!(error.contains("`e.json` is there already"), "{error}");
    sandbox.run(&[&record[..], &["--replace"]].concat()).success();
    let error = sandbox.run(&["tee", "record", "f.json", "--attester", "open"]).failure(1);
    assert!(error.contains("makes no evidence"), "{error}");
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

const QUOTE: &[u8] = include_bytes!("../../attest/testdata/dcap/tdx_quote");
const COLLATERAL: &str = include_str!("../../attest/testdata/dcap/tdx_quote_collateral.json");
/// A day after the collateral was issued.
const THEN: &str = "2025-06-20T10:16:03Z";

/// A policy for the image in [`QUOTE`], with its registers read from where the quote has them.
fn policy_of_the_quote() -> String {
    // Header of 48 bytes; in the report, MRTD at 136, three host-set registers, then RTMR0 to 3.
    let register = |number: usize| hex::encode(&QUOTE[184 + 48 * number..][..48]);
    let named = |key: &str, number| format!("{key} = \"{}\"\n", register(number));
    let host_set = [("mrconfigid", 1), ("mrowner", 2), ("mrownerconfig", 3)];
    let rtmrs = [("rtmr1", 5), ("rtmr2", 6), ("rtmr3", 7)];
    let registers: String =
        host_set.iter().chain(&rtmrs).map(|(key, number)| named(key, *number)).collect();
    format!(
        "version = 1\ntrust = \"production\"\n[tdx]\ntcb_status = [\"UpToDate\"]\n\
         min_tcb_eval_data_number = 17\nmax_collateral_age_h = 168\nallow_smt = true\n\
         allow_dynamic_platform = true\nallow_cached_keys = true\n[[tdx.image]]\n\
         name = \"sample\"\nrtmr0 = [\"{}\"]\n{}{registers}",
        register(4),
        named("mrtd", 0)
    )
}

#[test]
fn evidence_of_real_hardware_is_verified_check_by_check() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("quote"), QUOTE).unwrap();
    sandbox.write("collateral.json", COLLATERAL);
    sandbox.write("policy.toml", &policy_of_the_quote());
    sandbox.write("other.toml", EXAMPLE);
    let verify = |policy: &str, more: &[&str]| {
        let own = ["tee", "verify", "quote", "--collateral", "collateral.json"];
        sandbox.run(&[&own[..], &["--policy", policy], more].concat())
    };
    let printed = verify("policy.toml", &["--at", THEN]).success();
    assert!(printed.contains("verdict   accepted: tier attested, image `sample`"), "{printed}");
    // Nobody said what the quote was to be bound to.
    assert!(printed.contains("not checked  binding"), "{printed}");
    assert!(!printed.contains("FAIL") && !printed.contains("not reached"), "{printed}");

    // Another policy: everything up to the image holds, and the registers are shown to be copied.
    let outcome = verify("other.toml", &["--at", THEN]);
    assert_eq!(outcome.code, Some(3));
    assert!(outcome.stdout.contains("  FAIL         image\n"), "{outcome:?}");
    assert!(outcome.stdout.contains("  pass         platform\n"), "{outcome:?}");
    assert!(outcome.stdout.contains(&hex::encode(&QUOTE[184..232])), "{outcome:?}");
    assert!(outcome.stderr.contains("an image that the policy does not list"), "{outcome:?}");

    // Today, long after the collateral's end, nothing behind the dates is looked at.
    let outcome = verify("policy.toml", &["--json"]);
    assert_eq!(outcome.code, Some(3));
    let verdict: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&verdict["accepted"], &verdict["tier"]), (&json!(false), &json!("open")));
    let standing = |check: &str| {
        let checks = verdict["checks"].as_array().unwrap();
        checks.iter().find(|it| it["check"] == check).unwrap()["standing"].clone()
    };
    assert_eq!((standing("evidence"), standing("image")), (json!("failed"), json!("not_reached")));
    assert!(verdict["reason"].as_str().unwrap().contains("expired"), "{verdict}");

    // A bare quote without what vouches for it, no policy, no time, no file.
    let error = sandbox.run(&["tee", "verify", "quote", "--policy", "policy.toml"]).failure(2);
    assert!(error.contains("--collateral"), "{error}");
    let error = sandbox.run(&["tee", "verify", "quote"]).failure(2);
    assert!(error.contains("--policy"), "{error}");
    assert!(verify("policy.toml", &["--at", "soon"]).failure(2).contains("`--at`"));
    sandbox.run(&["tee", "verify", "none", "--policy", "policy.toml"]).failure(1);
    assert!(!sandbox.path("home").exists());
}

#[test]
fn a_list_of_advisories_is_signed_and_shown() {
    let sandbox = Sandbox::new();
    let content = include_str!("../../attest/testdata/advisories.toml");
    sandbox.write("list.toml", content);
    sandbox.run(&["tee", "advisories", "sign", "list.toml", "--output", "list"]).success();
    let printed = sandbox.run(&["tee", "advisories", "show", "list"]).success();
    for expected in ["version     12", "ends        2027-02-01T00:00:00Z", "INTEL-SA-01234"] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    let signed = std::fs::read_to_string(sandbox.path("list")).unwrap();
    sandbox.write("changed", &signed.replace("version = 12", "version = 13"));
    let error = sandbox.run(&["tee", "advisories", "show", "changed"]).failure(3);
    assert!(error.contains("not signed by its maintainer"), "{error}");
    sandbox.write("wrong.toml", &content.replace("[tdx]", "[sgx]"));
    let error = sandbox.run(&["tee", "advisories", "sign", "wrong.toml"]).failure(3);
    assert!(error.contains("not understood"), "{error}");
}

const DEV: &str = include_str!("../../../scripts/dev-policy.toml");

/// A record of a simulated guest with two GPUs; what was printed beside the file `e.json`.
fn record_with_gpus(sandbox: &Sandbox) -> String {
    let own = ["tee", "record", "e.json", "--attester", "simulated", "--name", "mine"];
    let gpus = ["--gpu-attester", "simulated", "--simulated-gpus", "2"];
    let outcome = sandbox.run(&[&own[..], &gpus].concat());
    assert!(outcome.stderr.contains("wrote simulated-tdx and 2 GPUs to e.json"), "{outcome:?}");
    outcome.success()
}

fn verify(sandbox: &Sandbox, policy: &str) -> crate::process::Outcome {
    sandbox.run(&["tee", "verify", "e.json", "--policy", policy])
}

#[test]
fn the_entries_that_are_recorded_of_a_guest_and_its_gpus_accept_exactly_them() {
    let sandbox = Sandbox::new();
    let entries = record_with_gpus(&sandbox);
    let text = std::fs::read_to_string(sandbox.path("e.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(file["gpus"].as_array().unwrap().len(), 2);
    assert_eq!(file["gpus"][1]["kind"], "simulated-nvidia");

    let rules = "version = 1\ntrust = \"dev\"\n[tdx]\ntcb_status = [\"UpToDate\"]\n\
                 min_tcb_eval_data_number = 1\nmax_collateral_age_h = 168\n";
    sandbox.write("policy.toml", &format!("{rules}{entries}"));
    let printed = verify(&sandbox, "policy.toml").success();
    assert!(!printed.contains("FAIL") && !printed.contains("not checked"), "{printed}");
    for expected in [
        "gpu 1     simulated-nvidia (SIMULATED: protects nothing), report of",
        "  pass         signature\n",
        "driver 0.0.0-simulated, VBIOS",
        "verdict   accepted (SIMULATED: protects nothing): tier confidential, image `mine`",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    // One digit of one measurement is another state.
    let at = entries.find("\n21 = [\"").unwrap() + 8;
    let mut other = entries.clone();
    other.replace_range(at..=at, if &entries[at..=at] == "0" { "1" } else { "0" });
    sandbox.write("other.toml", &format!("{rules}{other}"));
    let outcome = verify(&sandbox, "other.toml");
    assert_eq!(outcome.code, Some(3));
    assert!(outcome.stdout.contains("  FAIL         state\n"), "{outcome:?}");
    assert!(outcome.stdout.contains("its measurement 21 has a value"), "{outcome:?}");
}

#[test]
fn gpus_in_a_file_are_judged_and_refused_by_name() {
    let sandbox = Sandbox::new();
    record_with_gpus(&sandbox);
    sandbox.write("dev.toml", DEV);
    let printed = verify(&sandbox, "dev.toml").success();
    assert!(printed.contains("tier confidential"), "{printed}");

    let (without, _) = DEV.split_once("[gpu]").unwrap();
    sandbox.write("without.toml", without);
    let outcome = verify(&sandbox, "without.toml");
    assert_eq!(outcome.code, Some(3));
    assert!(outcome.stdout.contains("  FAIL         rules\n"), "{outcome:?}");
    assert!(outcome.stdout.contains("verdict   refused: the provider's GPU 0"), "{outcome:?}");

    // Whoever changes whose GPU it is, or takes it away, is found out by the guest's evidence.
    let text = std::fs::read_to_string(sandbox.path("e.json")).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    let gpu = file["gpus"].as_array_mut().unwrap().remove(1);
    sandbox.write("e.json", &file.to_string());
    let json = ["tee", "verify", "e.json", "--policy", "dev.toml", "--json"];
    let verdict = |code| {
        let outcome = sandbox.run(&json);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        serde_json::from_str::<Value>(&outcome.stdout).unwrap()
    };
    let refused = verdict(3);
    assert_eq!((&refused["tier"], &refused["accepted"]), (&json!("open"), &json!(false)));
    assert!(refused["reason"].as_str().unwrap().contains("not bound"), "{refused}");
    // A stranger's file that does not say what it was bound to earns its GPUs no tier.
    file["gpus"].as_array_mut().unwrap().push(gpu);
    file.as_object_mut().unwrap().remove("record");
    sandbox.write("e.json", &file.to_string());
    let unbound = verdict(0);
    assert_eq!((&unbound["tier"], &unbound["simulated"]), (&json!("attested"), &json!(true)));
    assert_eq!(unbound["gpus"][0]["standing"], "gpu-golden");
    let binding = unbound["gpus"][0]["checks"].as_array().unwrap();
    let binding = binding.iter().find(|it| it["check"] == "binding").unwrap();
    assert_eq!(binding["standing"], "not_checked");
    let printed = verify(&sandbox, "dev.toml").success();
    assert!(printed.contains("nothing says that this guest asked them"), "{printed}");
}
