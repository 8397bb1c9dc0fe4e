//! Serves an empty devnet on a free port of this machine, for trying other TON libraries on it:
//! `cargo run -p cocoon-ledger --example devnet`, then `node testdata/ton-client.mjs URL`.
//!
//! Owns: nothing. Must not: be used for more than trying; `cocoon-node` serves devnets.
#![expect(clippy::print_stdout, reason = "the URL is this program's output")]

use cocoon_ledger::embedded::{EmbeddedLedger, Options};
use cocoon_ledger::server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ledger = EmbeddedLedger::in_memory(Options::default())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, server::router(ledger)).await?;
    Ok(())
}
