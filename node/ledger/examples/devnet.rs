//! Serves an empty devnet on free ports of this machine, for trying other TON libraries on it:
//! `cargo run -p cocoon-ledger --example devnet` prints what `tests/ledger_clients/check.py` of the
//! node takes as arguments.
//!
//! Owns: nothing. Must not: be used for more than trying; `cocoon-node` serves devnets.
#![expect(clippy::print_stdout, reason = "addresses and key are this program's output")]

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cocoon_ledger::embedded::{EmbeddedLedger, Options};
use cocoon_ledger::server;
use ed25519_dalek::SigningKey;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ledger = EmbeddedLedger::in_memory(Options::default())?;
    let http = TcpListener::bind(("127.0.0.1", 0)).await?;
    let liteserver = TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    let key = SigningKey::from_bytes(&seed);
    println!("http://{}", http.local_addr()?);
    let public = BASE64_STANDARD.encode(key.verifying_key().as_bytes());
    println!("{} {public}", liteserver.local_addr()?);
    let stop = CancellationToken::new();
    let (http, liteserver) = tokio::join!(
        server::serve(http, ledger.clone(), stop.clone()),
        server::adnl::serve(liteserver, ledger, key, stop),
    );
    http?;
    liteserver?;
    Ok(())
}
