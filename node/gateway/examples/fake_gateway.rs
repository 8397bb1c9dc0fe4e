//! The gateway in front of a node that echoes: for trying clients without a network.
//!
//! Owns: nothing but the choice of a port. Prints the base URL and serves until interrupted.
//! Must not: be taken for a node; no model runs and nothing is paid.

use std::io::Write as _;
use std::sync::Arc;

use cocoon_gateway::{Options, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[path = "../tests/http/fake.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod fake;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "http://{}/v1", listener.local_addr()?)?;
    let shutdown = CancellationToken::new();
    let jobs = Arc::new(fake::Fake::new(fake::Script::Echo));
    let served = serve(listener, jobs, Options::default(), shutdown.clone());
    let interrupted = async {
        let interrupt = tokio::signal::ctrl_c().await;
        shutdown.cancel();
        interrupt
    };
    let (served, interrupted) = tokio::join!(served, interrupted);
    interrupted?;
    Ok(served?)
}
