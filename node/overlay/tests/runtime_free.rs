//! The simulator runs this crate in virtual time, so no runtime may come in through a dependency.
//!
//! Owns: that rule. Must not: look at dependencies of tests.

use std::process::Command;

#[test]
fn no_runtime_is_among_the_dependencies() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "cocoon-overlay", "--edges", "normal"])
        .args(["--prefix", "none", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).expect("cargo prints text");
    assert!(tree.contains("libp2p-swarm "), "the tree is that of the overlay");
    let runtimes = ["tokio ", "async-std ", "smol ", "rayon ", "quinn "];
    let found: Vec<_> =
        tree.lines().filter(|line| runtimes.iter().any(|name| line.starts_with(name))).collect();
    assert!(found.is_empty(), "{found:?}");
}
