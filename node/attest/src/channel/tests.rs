//! The channel over an in-memory stream: honest ends, and everyone else.
//!
//! Owns: both ends in all their states. Must not: wait for real time.

#[cfg(feature = "dev-tee")]
mod attacks;
#[cfg(feature = "dev-tee")]
mod gpus;
mod hello;
mod honest;
mod hostile;
#[cfg(feature = "dev-tee")]
mod mutual;
#[cfg(feature = "dev-tee")]
mod simulated;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cocoon_protocol::attest::{
    AttestRequest, Evidence, EvidenceKind, NetworkId, Policy, Refusal, ReportData, Tier,
};
use cocoon_protocol::identity::{NodeId, NodeKey};
use cocoon_protocol::units::{Millis, Timestamp};
use rustls::server::ServerConfig;
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::frame::{FrameReader, Kind, write_frame};
use super::tls::SharedTls;
use super::{
    AcceptOptions, AcceptedChannel, AttestedChannel, ChannelError, ChannelIdentity, ChannelTasks,
    ConnectOptions, IdentityOptions, accept, connect,
};
use crate::{Appraiser, Attester, Clock, OpenAttester, QuoteError, Quoted};

const START: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

/// A clock that runs with tokio's, and can be set forward beside it.
#[derive(Clone)]
struct TestClock {
    skipped: Arc<AtomicU64>,
    clock: Clock,
}

impl TestClock {
    fn new() -> Self {
        let skipped = Arc::new(AtomicU64::new(0));
        let begin = Instant::now();
        let ahead = Arc::clone(&skipped);
        let clock = Clock::new(move || {
            let run = u64::try_from(begin.elapsed().as_millis()).unwrap();
            START.after(Millis::new(run + ahead.load(Ordering::Relaxed)))
        });
        Self { skipped, clock }
    }

    fn skip(&self, by: Millis) {
        self.skipped.fetch_add(by.get(), Ordering::Relaxed);
    }
}

/// One provider and one consumer, and what they agree on.
struct World {
    key: NodeKey,
    network: NetworkId,
    provider_clock: TestClock,
    consumer_clock: TestClock,
    attester: Arc<dyn Attester>,
    policy: Policy,
    tasks: ChannelTasks,
}

impl World {
    fn open() -> Self {
        let clock = TestClock::new();
        Self {
            key: NodeKey::from_secret(&[1; 32]),
            network: NetworkId::from_name("test"),
            provider_clock: clock.clone(),
            consumer_clock: clock,
            attester: Arc::new(OpenAttester),
            policy: Policy::closed(),
            tasks: ChannelTasks::default(),
        }
    }

    fn identity(&self) -> Arc<ChannelIdentity> {
        Arc::new(ChannelIdentity::new(IdentityOptions {
            key: self.key.clone(),
            attester: Arc::clone(&self.attester),
            network: self.network,
            capabilities: [3; 32],
            configuration: [4; 32],
            model_manifest: Some([5; 32]),
            clock: self.provider_clock.clock.clone(),
        }))
    }

    fn connect_options(&self, minimum_tier: Tier) -> ConnectOptions {
        ConnectOptions {
            dialled: self.key.id(),
            network: self.network,
            appraiser: Arc::new(Appraiser::new(self.policy.clone())),
            minimum_tier,
            capabilities: Some([3; 32]),
            identity: None,
            clock: self.consumer_clock.clock.clone(),
            tasks: self.tasks.clone(),
        }
    }

    fn accept_options(&self) -> AcceptOptions {
        AcceptOptions { peer: consumer(), demand: None, tasks: self.tasks.clone() }
    }

    async fn try_open(
        &self,
        minimum_tier: Tier,
    ) -> (Result<AttestedChannel, ChannelError>, Result<AcceptedChannel, ChannelError>) {
        let (near, far) = duplex(64 * 1024);
        tokio::join!(
            connect(near, self.connect_options(minimum_tier)),
            accept(far, self.identity(), self.accept_options())
        )
    }

    /// Why the consumer refused.
    async fn refusal(&self, minimum_tier: Tier) -> Refusal {
        match self.try_open(minimum_tier).await.0 {
            Err(ChannelError::Refused(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }
}

/// A TEE whose quotes take until the test lets each go on. Its evidence is none.
#[derive(Debug)]
pub(super) struct Slow {
    began: tokio::sync::mpsc::Sender<()>,
    go_on: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Slow {
    pub(super) fn new() -> (Self, tokio::sync::mpsc::Receiver<()>, std::sync::mpsc::Sender<()>) {
        let (began, begun) = tokio::sync::mpsc::channel(8);
        let (let_go, go_on) = std::sync::mpsc::channel();
        (Self { began, go_on: std::sync::Mutex::new(go_on) }, begun, let_go)
    }
}

impl Attester for Slow {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::None
    }

    fn quote(&self, _: &ReportData, _: Timestamp) -> Result<Quoted, QuoteError> {
        let _ = self.began.try_send(());
        let _ = self.go_on.lock().unwrap().recv();
        Ok(Quoted { evidence: Evidence::None, endorsements: Bytes::new() })
    }
}

pub(super) fn consumer() -> NodeId {
    NodeKey::from_secret(&[2; 32]).id()
}

/// A provider's end in the hands of somebody else: TLS with `config`, the challenge read, and then
/// whatever the test does.
struct FakeProvider {
    tls: SharedTls<DuplexStream>,
    reader: FrameReader<SharedTls<DuplexStream>>,
    request: AttestRequest,
}

impl FakeProvider {
    async fn accept(stream: DuplexStream, config: Arc<ServerConfig>) -> Self {
        let tls = TlsAcceptor::from(config).accept(stream).await.unwrap();
        let tls = SharedTls::new(tls.into());
        let mut reader = FrameReader::new(tls.clone());
        let (kind, length) = reader.header().await.unwrap().unwrap();
        assert_eq!(kind, Kind::AttestRequest);
        let request = AttestRequest::from_bytes(&reader.payload(length).await.unwrap()).unwrap();
        Self { tls, reader, request }
    }

    async fn send(&mut self, kind: Kind, payload: &[u8]) {
        // The victim may have hung up already.
        let _ = write_frame(&mut self.tls, kind, payload).await;
        let _ = self.tls.flush().await;
    }

    async fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.tls.write_all(bytes).await;
        let _ = self.tls.flush().await;
    }

    /// Waits until the victim has hung up.
    async fn wait(mut self) {
        while let Ok(Some((_, length))) = self.reader.header().await {
            if self.reader.payload(length).await.is_err() {
                break;
            }
        }
    }
}

/// A consumer's end in the hands of somebody else: the handshake, and then whatever the test does.
async fn fake_consumer(stream: DuplexStream, dialled: NodeId) -> SharedTls<DuplexStream> {
    let reader = Arc::new(super::tls::CertificateReader::new(dialled, START));
    let config = super::tls::client_config(reader, Arc::default()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tls = connector.connect(super::tls::server_name().unwrap(), stream).await.unwrap();
    SharedTls::new(tls.into())
}

/// A server configuration that shows `certificate`.
fn showing(certificate: Vec<u8>, key: &rcgen::KeyPair) -> Arc<ServerConfig> {
    let certified = super::tls::certified(certificate, key.serialize_der()).unwrap();
    Arc::new(super::tls::server_config(&certified, false).unwrap())
}

async fn echo(channel: AcceptedChannel) -> Result<usize, ChannelError> {
    let (mut sender, mut receiver) = channel.split();
    let mut count = 0;
    while let Some(frame) = receiver.recv().await? {
        sender.send(frame).await?;
        count += 1;
    }
    Ok(count)
}

fn frame(size: usize, seed: u8) -> Bytes {
    (0..size).map(|i| u8::try_from(i % 251).unwrap() ^ seed).collect()
}
