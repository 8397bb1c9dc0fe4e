//! `tee measure` against what others compute, and its errors.

use std::process::Command;

use serde_json::Value;

use crate::process::Sandbox;

/// The ends of two firmware images, which are all that an image needs to be measured.
const FIRMWARE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/attest/testdata/measure");

#[test]
fn the_measurements_are_those_of_other_peoples_tools() {
    let Some(python) = std::env::var_os("COCOON_TEST_PYTHON") else {
        println!("skipped: COCOON_TEST_PYTHON is not set");
        return;
    };
    let probe = Command::new(&python).args(["-c", "import sevsnpmeasure, lief"]).output().unwrap();
    if !probe.status.success() {
        println!("skipped: sev-snp-measure and lief are not installed; scripts/test installs them");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/measurement_tools/check.py");
    let run = Command::new(python)
        .args(["-B", script, "compare", env!("CARGO_BIN_EXE_cocoon-node"), FIRMWARE])
        // Whole firmware, where there is some.
        .args(std::env::var_os("COCOON_TEST_FIRMWARE"))
        .output()
        .unwrap();
    let printed = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{printed}{}", String::from_utf8_lossy(&run.stderr));
    assert!(printed.lines().filter(|line| line.starts_with("snp ")).count() >= 5, "{printed}");
    assert!(printed.lines().filter(|line| line.starts_with("tdx ")).count() >= 4, "{printed}");
    println!("{printed}");
}

#[test]
fn an_entry_can_be_pasted_into_a_policy() {
    let sandbox = Sandbox::new();
    let firmware = format!("{FIRMWARE}/ovmf_OvmfX64_suffix.bin");
    let base = ["tee", "measure", "snp", "--firmware", &firmware, "--vcpus", "1,2"];
    let types = ["--vcpu-type", "EPYC-v4,EPYC-Genoa"];
    let entry = sandbox.run(&[&base[..], &types, &["--entry", "--name", "a \"b\""]].concat());
    let parsed: toml::Value = toml::from_str(&entry.success()).unwrap();
    let images = parsed["snp"]["image"].as_array().unwrap();
    let json = sandbox.run(&[&base[..], &types, &["--json"]].concat()).success();
    let json: Value = serde_json::from_str(&json).unwrap();
    let digests = json["digests"].as_array().unwrap();
    assert_eq!((images.len(), digests.len()), (4, 4));
    for (image, digest) in images.iter().zip(digests) {
        assert_eq!(image["measurement"].as_str(), digest["measurement"].as_str());
        assert_eq!(image["vcpus"].as_integer(), digest["vcpus"].as_i64());
    }
    assert_eq!(images[2]["name"].as_str(), Some("a \"b\", EPYC-Genoa x1"));
}

#[test]
fn what_cannot_be_measured_is_said_with_the_file_and_the_reason() {
    let sandbox = Sandbox::new();
    sandbox.write("zeros", &"\0".repeat(4096));
    let processors = ["--vcpus", "1", "--vcpu-type", "EPYC-v4"];
    let snp = |arguments: &[&str]| {
        sandbox.run(&[&["tee", "measure", "snp"], arguments, &processors].concat())
    };
    let error = snp(&["--firmware", "zeros"]).failure(1);
    assert!(error.contains("zeros is no firmware for a confidential guest"), "{error}");
    assert!(error.contains("no table of OVMF"), "{error}");
    let error = snp(&["--firmware", "missing"]).failure(1);
    assert!(error.contains("cannot read missing"), "{error}");
    let generic = format!("{FIRMWARE}/ovmf_OvmfX64_suffix.bin");
    let boot = ["--kernel", "zeros", "--initrd", "zeros"];
    let error = snp(&[&["--firmware", &generic], &boot[..]].concat()).failure(1);
    assert!(error.contains("the kernel would not be measured"), "{error}");
    let amdsev = format!("{FIRMWARE}/ovmf_AmdSev_suffix.bin");
    let line = ["--command-line", " quiet"];
    let error = snp(&[&["--firmware", &amdsev], &boot[..], &line].concat()).failure(2);
    assert!(error.contains("white space"), "{error}");
    let error = sandbox.run(&["tee", "measure", "tdx", "--firmware", &amdsev]).failure(1);
    assert!(error.contains("is no firmware for TDX"), "{error}");
    assert!(error.contains("a section's content is outside the image"), "{error}");
}
