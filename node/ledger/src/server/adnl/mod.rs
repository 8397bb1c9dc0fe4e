//! The embedded ledger as a liteserver: TON's own protocol, ADNL over TCP, with proofs.
//!
//! Owns: connections, and what a client may take from us.
//! Must not: execute anything itself.

mod methods;
mod proofs;

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::embedded::EmbeddedLedger;
use crate::liteserver::adnl::{Stream, StreamError};
use crate::liteserver::api::{Answer, Asked, Envelope};

/// Clients at a time; a devnet has a few connections from each of its nodes. More wait in the
/// system's queue.
const CONNECTIONS: usize = 256;
/// Questions of one client that are worked on at a time; more are refused.
const QUESTIONS: usize = 32;
/// Questions of one client in a second, on average, and at once. More are refused.
const RATE: u32 = 200;
const BURST: u32 = 400;
/// Answers that wait to be sent to one client. It does not read them: then it gets no more.
const ANSWERS: usize = 64;
/// A client has this long for its first bytes, and must then say something this often. Clients
/// send a ping every few seconds.
const HANDSHAKE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(120);

/// Serves `ledger` as the holder of `key`, until `stop` is cancelled.
///
/// # Errors
///
/// Never at present; the type is that of every service.
pub async fn serve(
    listener: TcpListener,
    ledger: EmbeddedLedger,
    key: SigningKey,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let key = Arc::new(key);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut clients = JoinSet::new();
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            Some(_) = clients.join_next() => continue,
            accepted = accept => accepted,
        };
        let Ok(place) = place else { return Ok(()) };
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            // Out of descriptors, or the client is gone already: not the end of the service.
            Err(error) => {
                tracing::warn!(%error, "a liteserver's client could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (ledger, key) = (ledger.clone(), Arc::clone(&key));
        clients.spawn(async move {
            let _place = place;
            if let Err(error) = client(tcp, ledger, &key).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "a client is gone");
            }
        });
    }
}

/// What one client may still ask: refilled with time.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    const fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        let earned = passed.as_millis().saturating_mul(RATE.into()) / 1_000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(BURST);
            self.left = self.left.saturating_add(earned).min(BURST);
            self.since = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

async fn client(
    tcp: TcpStream,
    ledger: EmbeddedLedger,
    key: &SigningKey,
) -> Result<(), StreamError> {
    let silent = || StreamError::Io(std::io::ErrorKind::TimedOut.into());
    let stream = tokio::time::timeout(HANDSHAKE, Stream::accept(tcp, key)).await;
    let Stream { mut incoming, mut outgoing } = stream.map_err(|_| silent())??;
    let (answers, mut waiting) = mpsc::channel::<Vec<u8>>(ANSWERS);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(frame) = waiting.recv().await {
            if outgoing.send(&frame).await.is_err() {
                return;
            }
        }
    });
    let places = Arc::new(Semaphore::new(QUESTIONS));
    let mut allowance = Allowance::new(Instant::now());
    loop {
        let frame = tokio::time::timeout(SILENCE, incoming.receive()).await;
        let frame = frame.map_err(|_| silent())??;
        while tasks.try_join_next().is_some() {}
        let (id, query) = match Envelope::decode(&frame) {
            Ok(Envelope::Query { id, query }) => (id, query),
            Ok(Envelope::Ping(number)) => {
                send(&answers, &Envelope::Pong(number)).await?;
                continue;
            }
            // An empty frame keeps the connection alive; anything else is nothing to us.
            Ok(Envelope::Answer { .. } | Envelope::Pong(_)) | Err(_) => continue,
        };
        let place = Arc::clone(&places).try_acquire_owned();
        let (true, Ok(place)) = (allowance.take(Instant::now()), place) else {
            let refusal = refused(methods::TOO_MANY, "too many questions; ask again later");
            send(&answers, &Envelope::Answer { id, answer: refusal }).await?;
            continue;
        };
        let (ledger, answers) = (ledger.clone(), answers.clone());
        tasks.spawn(async move {
            let _place = place;
            let answer = match Asked::decode(&query) {
                Ok(asked) => methods::answer(&ledger, asked).await.encode(),
                Err(_) => refused(-400, "unknown method"),
            };
            let _ = send(&answers, &Envelope::Answer { id, answer }).await;
        });
    }
}

fn refused(code: i32, message: &str) -> Vec<u8> {
    Answer::Failed { code, message: message.to_owned() }.encode()
}

async fn send(answers: &mpsc::Sender<Vec<u8>>, envelope: &Envelope) -> Result<(), StreamError> {
    let closed = |_| StreamError::Io(std::io::ErrorKind::BrokenPipe.into());
    answers.send(envelope.encode()).await.map_err(closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let taken =
            |allowance: &mut Allowance, now| (0..10_000).filter(|_| allowance.take(now)).count();
        assert_eq!(taken(&mut allowance, start), 400);
        assert_eq!(taken(&mut allowance, start + Duration::from_millis(100)), 20);
        assert_eq!(taken(&mut allowance, start + Duration::from_secs(3_600)), 400);
    }
}
