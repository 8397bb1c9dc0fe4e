//! Runs a test's world in a process of its own, because a process simulates once.
//!
//! Owns: the way there and back. Must not: know worlds.

use std::process::Command;

const CHILD: &str = "SIMNET_CORE_WORLD";

/// Runs `world` in a fresh process and returns what it returned there. `test` is the full name of the
/// test that calls this, which the other process runs again up to here.
pub(crate) fn own_process(test: &str, world: impl FnOnce() -> String + Send) -> String {
    own_process_of(test, "", |_| world())
}

/// The same for a test with several worlds, told apart by `which`.
pub(crate) fn own_process_of(
    test: &str,
    which: &str,
    world: impl FnOnce(&str) -> String + Send,
) -> String {
    if let Ok(asked) = std::env::var(CHILD) {
        let result = simnet_core::on_fresh_thread(|| world(&asked)).unwrap();
        println!("\nworld: {result}");
        // The parent has what it wants; the rest of the test is its own.
        #[expect(clippy::disallowed_methods, clippy::exit, reason = "nothing to flush in here")]
        std::process::exit(0);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, which)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let result = text.lines().find_map(|line| line.strip_prefix("world: "));
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    result.unwrap_or_else(|| panic!("no test {test}? {text}")).to_owned()
}

/// The world of a test in a process of its own; it fails by panicking.
#[macro_export]
macro_rules! world {
    ($(#[$meta:meta])* fn $name:ident() $body:block) => {
        $(#[$meta])*
        #[test]
        fn $name() {
            let path = concat!(module_path!(), "::", stringify!($name));
            let path = path.split_once("::").map_or(path, |(_, path)| path);
            $crate::own_process::own_process(path, || {
                $body
                String::new()
            });
        }
    };
}
