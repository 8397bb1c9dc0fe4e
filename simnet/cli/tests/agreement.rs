//! Both tiers show the same network: the abstract one's figures are those of the exact one.
//!
//! Owns: the check at one size that the calibration was not made of. Must not: be the whole check;
//! `simnet calibrate --check` compares larger networks too.

use std::process::Command;

#[test]
fn the_tiers_agree_at_a_size_and_with_seeds_that_the_calibration_does_not_know() {
    let compared = Command::new(env!("CARGO_BIN_EXE_simnet"))
        .args(["calibrate", "--check", "--nodes", "500"])
        .output()
        .unwrap();
    let table = String::from_utf8(compared.stdout).unwrap();
    assert!(compared.status.success(), "{table}{}", String::from_utf8_lossy(&compared.stderr));
    for figure in ["route-ready time", "traffic", "success rate"] {
        assert!(table.contains(figure), "{table}");
    }
}
