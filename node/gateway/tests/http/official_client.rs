//! The official Python client, unmodified, against the gateway.
//!
//! Owns: starting it. What is checked stands in `node/tests/openai_clients/check.py`, which the
//! node's own tests run as well, against a real network.

use std::path::Path;

use tokio::process::Command;

use crate::fake::{MODEL, Script};
use crate::{Server, soon};

/// A Python with the `openai` package; `scripts/test` installs one and says where.
const PYTHON: &str = "COCOON_TEST_PYTHON";

#[tokio::test]
async fn the_official_client_sees_openais_own_interface() {
    let Some(python) = std::env::var_os(PYTHON) else {
        eprintln!("skipped: {PYTHON} is not set; run scripts/test");
        return;
    };
    let server = Server::start(Script::Echo).await;
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/openai_clients/check.py");
    let mut command = Command::new(python);
    command.arg(check).arg(server.url("/v1")).arg(MODEL).env("NO_PROXY", "127.0.0.1");
    let output = soon(command.kill_on_drop(true).output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("errors message="), "{said}");
}
