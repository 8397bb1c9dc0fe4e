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
    let entries = entry.success();
    let parsed: toml::Value = toml::from_str(&entries).unwrap();
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
    let configured = ["--configuration", &"22".repeat(32), "--entry"];
    let entry = sandbox.run(&[&base[..], &types, &configured].concat()).success();
    let host_data = format!("host_data = \"{}\"\n", "22".repeat(32));
    assert_eq!(entry.matches(&host_data).count(), 4, "{entry}");
    let rules = "version = 1\ntrust = \"production\"\n\n[snp]\nproducts = [\"Milan\"]\n\
                 max_crl_age_d = 30\nmin_tcb.Milan = { bl = 3, tee = 0, snp = 8, ucode = 115 }\n\n";
    for entries in [entries, entry] {
        sandbox.write("policy.toml", &format!("{rules}{entries}"));
        sandbox.run(&["tee", "policy", "check", "policy.toml"]).success();
    }
}

#[test]
fn an_entry_for_tdx_denies_until_a_reference_host_has_recorded_its_shape() {
    // Debian's generic firmware has TDVF's metadata.
    let Some(firmware) = std::env::var_os("COCOON_TEST_FIRMWARE") else {
        println!("skipped: COCOON_TEST_FIRMWARE is not set");
        return;
    };
    let sandbox = Sandbox::new();
    let firmware = firmware.into_string().unwrap();
    std::fs::write(sandbox.path("kernel"), efi_image()).unwrap();
    sandbox.write("initrd", "an initrd");
    let base = ["tee", "measure", "tdx", "--entry", "--firmware", &firmware];
    let boot = ["--kernel", "kernel", "--initrd", "initrd", "--command-line", "-- --provide"];
    let check = |more: &[&str]| {
        let entry = sandbox.run(&[&base[..], &boot, more].concat()).success();
        let rules = "version = 1\ntrust = \"production\"\n\n[tdx]\ntcb_status = [\"UpToDate\"]\n\
                     min_tcb_eval_data_number = 17\nmax_collateral_age_h = 168\n\n";
        sandbox.write("policy.toml", &format!("{rules}{entry}"));
        sandbox.run(&["tee", "policy", "check", "policy.toml"])
    };
    let refused = check(&[]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(format!("{refused:?}").contains("rtmr0"), "{refused:?}");
    let shape = ["--rtmr0", &"ab".repeat(48)];
    check(&shape).success();
    // With a configuration, RTMR3 is what the node extends it to.
    check(&[&shape[..], &["--configuration", &"11".repeat(32)]].concat()).success();
    let policy = std::fs::read_to_string(sandbox.path("policy.toml")).unwrap();
    assert!(policy.contains(&cocoon_attest::expected_rtmr3(&[0x11; 32]).to_string()), "{policy}");
    // Firmware alone makes no entry.
    let error = sandbox.run(&base).failure(2);
    assert!(error.contains("needs RTMR1 and RTMR2"), "{error}");
}

/// The least that is an EFI image: headers without a section.
fn efi_image() -> Vec<u8> {
    let mut image = vec![0; 0x200];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x40;
    image[0x40..0x44].copy_from_slice(b"PE\0\0");
    image[0x54] = 240;
    image[0x58..0x5a].copy_from_slice(&[0x0b, 0x02]);
    image[0x58 + 61] = 2;
    image
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
