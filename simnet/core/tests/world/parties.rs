//! Plain users of a transport: one that answers with what it hears, and one that dials.
//!
//! Owns: those. Must not: assert; the tests do.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _};
use libp2p::core::muxing::{StreamMuxer as _, StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p::core::{Endpoint, Transport as _};
use libp2p::{Multiaddr, PeerId};
use simnet_core::{Config, Links, NodeIndex, NodeSpec, Simulation, Uniform, clock, spawn};

pub(crate) type Transport = Boxed<(PeerId, StreamMuxerBox)>;

/// What tasks tell their test, with the moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Rc<RefCell<Vec<(Duration, String)>>>);

impl Log {
    pub(crate) fn say(&self, text: impl Into<String>) {
        self.0.borrow_mut().push((clock::now(), text.into()));
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.0.borrow().iter().map(|(_, text)| text.clone()).collect()
    }

    /// When it was said, the first time.
    pub(crate) fn when(&self, text: &str) -> Option<Duration> {
        self.0.borrow().iter().find(|said| said.1 == text).map(|said| said.0)
    }
}

/// 50 ms one way between any two nodes, access lines without limit and without delay.
pub(crate) fn simple_links() -> Box<dyn Links> {
    Box::new(Uniform::round_trip(Duration::from_millis(100)))
}

pub(crate) fn build() -> Simulation {
    build_with(|_| {})
}

pub(crate) fn build_with(change: impl FnOnce(&mut Config)) -> Simulation {
    let mut config = Config { links: simple_links(), ..Config::new(1) };
    // Latencies without the processor's part are round numbers.
    config.wire.handshake_cpu = Duration::ZERO;
    change(&mut config);
    Simulation::build(config).unwrap()
}

/// A node at no distance from the network, with a line that does not limit.
pub(crate) fn spec() -> NodeSpec {
    NodeSpec {
        last_mile: Duration::ZERO,
        access: simnet_core::Access::symmetric(1_000_000_000_000),
        ..NodeSpec::default()
    }
}

pub(crate) fn peer(node: NodeIndex) -> PeerId {
    let mut secret = [7; 32];
    secret[..4].copy_from_slice(&node.0.to_le_bytes());
    let key = libp2p::identity::Keypair::ed25519_from_bytes(secret).unwrap();
    key.public().to_peer_id()
}

/// A transport that listens, and a task that drives it and hands connections on.
pub(crate) fn listen(
    sim: &mut Simulation,
    node: NodeIndex,
    on_connection: impl FnMut(PeerId, StreamMuxerBox) + 'static,
) -> Rc<RefCell<Transport>> {
    let transport = sim.transport(node, peer(node));
    let address = sim.address(node);
    listen_with(sim, node, transport, address, on_connection)
}

pub(crate) fn listen_with(
    sim: &mut Simulation,
    node: NodeIndex,
    mut transport: Transport,
    address: Multiaddr,
    mut on_connection: impl FnMut(PeerId, StreamMuxerBox) + 'static,
) -> Rc<RefCell<Transport>> {
    transport.listen_on(ListenerId::next(), address).unwrap();
    let transport = Rc::new(RefCell::new(transport));
    let driven = transport.clone();
    sim.spawn(node, async move {
        let mut upgrades = futures::stream::FuturesUnordered::new();
        poll_fn(|cx| {
            while let std::task::Poll::Ready(event) = Pin::new(&mut *driven.borrow_mut()).poll(cx) {
                if let TransportEvent::Incoming { upgrade, .. } = event {
                    upgrades.push(upgrade);
                }
            }
            while let std::task::Poll::Ready(Some(upgraded)) =
                futures::StreamExt::poll_next_unpin(&mut upgrades, cx)
            {
                if let Ok((peer, muxer)) = upgraded {
                    on_connection(peer, muxer);
                }
            }
            std::task::Poll::<()>::Pending
        })
        .await;
    });
    transport
}

/// A node that sends back everything it hears, on every stream of every connection.
pub(crate) fn echo(sim: &mut Simulation, node: NodeIndex, log: &Log) -> Rc<RefCell<Transport>> {
    let log = log.clone();
    listen(sim, node, move |_, muxer| spawn(echo_connection(muxer, log.clone())))
}

pub(crate) async fn echo_connection(mut muxer: StreamMuxerBox, log: Log) {
    loop {
        match poll_fn(|cx| accept(&mut muxer, cx)).await {
            Ok(mut stream) => spawn(async move {
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
                let _ = stream.close().await;
            }),
            Err(error) => {
                log.say(format!("echo lost {}", kind(&error)));
                return;
            }
        }
    }
}

fn accept(
    muxer: &mut StreamMuxerBox,
    cx: &mut std::task::Context<'_>,
) -> std::task::Poll<io::Result<SubstreamBox>> {
    if let std::task::Poll::Ready(Err(error)) = Pin::new(&mut *muxer).poll(cx) {
        return std::task::Poll::Ready(Err(error));
    }
    muxer.poll_inbound_unpin(cx)
}

/// The kind of an error that libp2p may have wrapped.
pub(crate) fn kind(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
    format!("{:?}", inner.unwrap_or(error).kind())
}

pub(crate) async fn dial(
    transport: &Rc<RefCell<Transport>>,
    address: Multiaddr,
) -> io::Result<StreamMuxerBox> {
    dial_as(transport, address, Endpoint::Dialer).await
}

pub(crate) async fn dial_as(
    transport: &Rc<RefCell<Transport>>,
    address: Multiaddr,
    role: Endpoint,
) -> io::Result<StreamMuxerBox> {
    let options = DialOpts { role, port_use: PortUse::Reuse };
    let dialling = transport.borrow_mut().dial(address, options);
    let dialling = dialling.map_err(|error| io::Error::other(error.to_string()))?;
    Ok(dialling.await?.1)
}

pub(crate) async fn open(muxer: &mut StreamMuxerBox) -> io::Result<SubstreamBox> {
    poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await
}

/// Resolves once the connection is over at this end, with the reason.
pub(crate) async fn watch(muxer: &mut StreamMuxerBox) -> io::Error {
    poll_fn(|cx| match Pin::new(&mut *muxer).poll(cx) {
        std::task::Poll::Ready(Err(error)) => std::task::Poll::Ready(error),
        std::task::Poll::Ready(Ok(_)) | std::task::Poll::Pending => std::task::Poll::Pending,
    })
    .await
}

pub(crate) async fn sleep(time: Duration) {
    futures_timer::Delay::new(time).await;
}

/// Sends a word over a new stream and waits until it is back.
pub(crate) async fn ask(muxer: &mut StreamMuxerBox, word: &[u8]) -> io::Result<Duration> {
    let since = clock::now();
    let mut stream = open(muxer).await?;
    stream.write_all(word).await?;
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).await?;
    assert_eq!(back, word);
    stream.close().await?;
    Ok(clock::now() - since)
}

/// Two nodes; the second answers. The first runs `work` with a transport that listens, too.
pub(crate) fn pair<F: Future<Output = ()> + 'static>(
    sim: &mut Simulation,
    log: &Log,
    work: impl FnOnce(Rc<RefCell<Transport>>, Multiaddr, Log) -> F,
) -> (NodeIndex, NodeIndex) {
    let (a, b) = (sim.add_node(spec()), sim.add_node(spec()));
    echo(sim, b, log);
    let transport = listen(sim, a, |_, _| {});
    let task = work(transport, sim.address(b), log.clone());
    sim.spawn(a, task.map(|()| ()));
    (a, b)
}
