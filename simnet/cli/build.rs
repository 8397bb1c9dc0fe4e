//! Finds the commit that is built, if there is one.
//!
//! Owns: the one environment variable that the program reads at compile time.
//! Must not: fail a build outside git.

use std::io::Write as _;
use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn main() {
    let mut out = std::io::stdout();
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_default();
    let mut lines = vec![format!("cargo::rustc-env=SIMNET_COMMIT={commit}")];
    // The head moves with a commit, and with the branch that it names.
    if let Some(head) = git(&["rev-parse", "--git-path", "HEAD"]) {
        lines.push(format!("cargo::rerun-if-changed={head}"));
    }
    let branch = git(&["symbolic-ref", "-q", "HEAD"]);
    if let Some(path) = branch.and_then(|name| git(&["rev-parse", "--git-path", &name])) {
        lines.push(format!("cargo::rerun-if-changed={path}"));
    }
    // A build script whose output cannot be written has failed already.
    let _ = writeln!(out, "{}", lines.join("\n"));
}
