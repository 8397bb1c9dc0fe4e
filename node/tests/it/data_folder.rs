//! A node and its data folder: made private, held by one process, left in order.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::process::Sandbox;

const NODE: &[&str] = &["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn everything_in_the_folder_is_its_owners_alone() {
    let sandbox = Sandbox::new();
    let _node = sandbox.start(NODE);
    let folder = sandbox.data_dir();
    assert_eq!(mode(&folder), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    for name in ["keystore.json", "store.redb", "lock", "control.sock"] {
        assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
    }
}

#[test]
fn a_second_node_on_the_folder_is_refused_and_told_who_holds_it() {
    let sandbox = Sandbox::new();
    let first = sandbox.start(NODE);
    let error = sandbox.run(NODE).failure(5);
    assert!(error.contains(&format!("is in use by process {}", first.id())), "{error}");
    assert!(error.contains("hint: stop that process"), "{error}");
    // The first is unharmed, its control socket included.
    let status = sandbox.run(&["status"]).success();
    assert!(status.contains(&format!("process {}", first.id())), "{status}");
}

#[test]
fn a_node_keeps_its_identity_and_a_killed_one_leaves_nothing_in_the_way() {
    let sandbox = Sandbox::new();
    let identity = || {
        let status = sandbox.run(&["status", "--json"]).success();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["node"].as_str().unwrap().to_owned()
    };
    let node = sandbox.start(NODE);
    let first = identity();
    node.signal("KILL");
    assert_eq!(node.wait(), None);
    sandbox.run(&["status"]).failure(4);
    let _node = sandbox.start(NODE);
    assert_eq!(identity(), first);
}

#[test]
fn a_node_ends_well_on_every_polite_request() {
    let sandbox = Sandbox::new();
    for signal in ["TERM", "INT"] {
        let node = sandbox.start(NODE);
        node.signal(signal);
        assert_eq!(node.wait(), Some(0), "{signal}");
    }
    let node = sandbox.start(NODE);
    assert_eq!(sandbox.run(&["stop"]).success(), "");
    assert_eq!(node.wait(), Some(0));
    assert!(!sandbox.data_dir().join("control.sock").exists());
}

#[test]
fn an_exposed_key_is_refused_with_the_command_that_repairs_it() {
    let sandbox = Sandbox::new();
    let node = sandbox.start(NODE);
    node.signal("TERM");
    node.wait();
    let key = sandbox.data_dir().join("keystore.json");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let error = sandbox.run(NODE).failure(1);
    assert!(error.contains("is open to other users (mode 644)"), "{error}");
    assert!(error.contains(&format!("hint: run `chmod go= {}`", key.display())), "{error}");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    drop(sandbox.start(NODE));
}

#[test]
fn a_damaged_store_is_refused_and_kept() {
    let sandbox = Sandbox::new();
    let node = sandbox.start(NODE);
    node.signal("TERM");
    node.wait();
    let store = sandbox.data_dir().join("store.redb");
    fs::write(&store, "damaged").unwrap();
    let error = sandbox.run(NODE).failure(1);
    assert!(error.contains("caused by: the store is damaged"), "{error}");
    assert!(error.contains("hint: keep the file"), "{error}");
    assert_eq!(fs::read(&store).unwrap(), b"damaged");
}
