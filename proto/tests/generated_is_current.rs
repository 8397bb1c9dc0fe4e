//! The checked-in code is what the schemas generate, so that building needs no protoc.
//!
//! Owns: the comparison, and with `COCOON_WRITE_GENERATED=1` the renewal.
//! Must not: be part of a build; nothing else compiles the schemas.

use std::path::Path;

/// Generates into a temporary folder and compares with `src/generated`.
#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schemas = ["offer", "session", "channel", "job", "receipt"]
        .map(|name| root.join(format!("wire/v1/{name}.proto")));
    let descriptors = protox::compile(schemas, [root]).expect("the schemas compile");
    let out = tempfile::tempdir().expect("a temporary folder");
    prost_build::Config::new()
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("prost generates code");
    let name = "cocoon.wire.v1.rs";
    let fresh = std::fs::read_to_string(out.path().join(name)).expect("generated file");
    let kept = root.join("src/generated").join(name);
    if std::env::var_os("COCOON_WRITE_GENERATED").is_some() {
        std::fs::write(&kept, &fresh).expect("writable checkout");
    }
    let checked_in = std::fs::read_to_string(&kept).unwrap_or_default();
    assert!(
        checked_in == fresh,
        "src/generated is stale: run `COCOON_WRITE_GENERATED=1 cargo test -p cocoon-proto` and commit"
    );
}
