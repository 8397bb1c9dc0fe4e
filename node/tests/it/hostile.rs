//! Bytes that nobody honest sends, at every door of a real node: it stays, serves the next good
//! request, and does not grow.
//!
//! Control streams get theirs in `cocoon-overlay`'s own tests, where they can be opened raw.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use cocoon_node::clock::{Clock as _, SystemClock};
use cocoon_node::net::swarm::{Net, NetHandle};
use cocoon_overlay::{Config, Multiaddr, Role};
use cocoon_protocol::identity::{NodeId, NodeKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::gateway::{request, send, words};
use crate::network::{ECHO, Network, Peer, eventually, free_port};

/// What a node may grow by in one of these tests: buffers and tables that stay allocated, measured
/// at a third of it. The bytes that are sent, or claimed to follow, are far more.
const GROWTH_KIB: u64 = 32 * 1024;
/// How long a hostile peer waits for an answer that it may never get.
const GLANCE: Duration = Duration::from_millis(200);

/// Resident memory of a process, in KiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes that look random and are the same each time.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Beginnings of frames: noise, nothing, lengths that promise gigabytes, TLS records cut short.
fn openings() -> Vec<Vec<u8>> {
    let mut all = vec![
        vec![],
        vec![0],
        vec![0xff; 4],
        vec![0xff; 64 * 1024],
        [&0x7fff_ffff_u32.to_be_bytes()[..], &noise(1, 1_000)].concat(),
        // Handshake records: of the greatest length and cut off, and of a client hello's first bytes.
        [&[22, 3, 3, 0x3f, 0xff][..], &noise(2, 500)].concat(),
        [&[22, 3, 1, 0, 200, 1, 0xff, 0xff, 0xff, 3, 3][..], &noise(3, 195)].concat(),
    ];
    all.extend((10..20).map(|seed| noise(seed, 3_000)));
    all
}

#[track_caller]
fn serves(consumer: &Peer<'_>) {
    let answer = eventually("a good request is served", || {
        let answer = consumer.chat(&words(ECHO, 10));
        (answer.status == 200).then(|| answer.whole())
    });
    assert_eq!(answer.text.split(' ').count(), 10);
}

#[track_caller]
fn stayed_small(before: u64, process: u32) {
    let after = resident(process);
    assert!(after < before + GROWTH_KIB, "it grew from {before} to {after} KiB");
}

#[test]
fn noise_at_every_http_route_is_refused_and_forgotten() {
    let network = Network::start();
    let _provider = network.provide("provider", &[]);
    let consumer = network.consume("consumer", &[]);
    serves(&consumer);
    let ledger: u16 = network.ledger().rsplit(':').next().unwrap().parse().unwrap();
    let routes: [(u16, &[&str]); 2] = [
        (
            consumer.port(),
            &["/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/nothing"],
        ),
        (
            ledger,
            &[
                "/api/v2/jsonRPC",
                "/api/v2/sendBoc",
                "/api/v2/getAddressInformation",
                "/api/v2/runGetMethod",
                "/api/v2/nothing",
                "/devnet/faucet",
            ],
        ),
    ];
    let before = (resident(consumer.node().id()), resident(network.entry()));
    let deep = "[".repeat(100_000);
    for (port, paths) in routes {
        for path in paths {
            let bodies = [&noise(1, 10_000)[..], b"", b"{", b"null", b"{}", deep.as_bytes()];
            for (method, body) in ["GET", "POST", "PUT"]
                .into_iter()
                .flat_map(|method| bodies.map(|body| (method, body)))
            {
                let answer = request(port, method, path, &[], body);
                let fine = method == "GET" && matches!(*path, "/v1/models" | "/health");
                assert!(
                    fine || (400..500).contains(&answer.status),
                    "{method} {path}: {}",
                    answer.head
                );
            }
            // A body that never comes, and one that is said to be enormous.
            let head = |length: &str| {
                format!(
                    "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{{"
                )
            };
            for length in ["50", "99999999999", "18446744073709551616", "-1"] {
                let mut stream = send(port, head(length).as_bytes());
                stream.set_read_timeout(Some(GLANCE)).unwrap();
                let _ = stream.read(&mut [0; 1_000]);
            }
        }
        for bytes in openings() {
            let mut stream = send(port, &bytes);
            stream.set_read_timeout(Some(GLANCE)).unwrap();
            let _ = stream.read(&mut [0; 1_000]);
        }
    }
    serves(&consumer);
    stayed_small(before.0, consumer.node().id());
    stayed_small(before.1, network.entry());
}

/// A peer that is not ours, connected to the node at `address`.
async fn stranger(address: &Multiaddr) -> (NetHandle, CancellationToken) {
    let key = NodeKey::from_secret(&[7; 32]);
    let config = Config::new(key, Role::Consumer, [8; 32], || SystemClock.now());
    let stop = CancellationToken::new();
    let (net, mut events, work) = Net::new(config).unwrap().split(stop.clone());
    tokio::spawn(work);
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    net.dial(address.clone()).await.unwrap();
    (net, stop)
}

#[test]
fn noise_on_sessions_and_ports_of_peers_harms_nobody_else() {
    let network = Network::start();
    let tcp = free_port();
    let udp = free_port();
    let addresses =
        [format!("/ip4/127.0.0.1/udp/{udp}/quic-v1"), format!("/ip4/127.0.0.1/tcp/{tcp}")];
    let listen = ["--listen", &addresses[0], "--listen", &addresses[1]];
    let provider = network.provide("provider", &listen);
    let consumer = network.consume("consumer", &[]);
    serves(&consumer);
    let status = provider.ask(&["status"]);
    let node: NodeId = serde_json::from_value(status["node"].clone()).unwrap();
    let address: Multiaddr = status["addresses"][0].as_str().unwrap().parse().unwrap();
    let before = resident(provider.node().id());

    // Below the protocols: what is neither QUIC nor a libp2p handshake.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for seed in 0..500 {
        socket.send_to(&noise(seed, 1_200), ("127.0.0.1", udp)).unwrap();
    }
    for bytes in openings() {
        let mut stream = TcpStream::connect(("127.0.0.1", tcp)).unwrap();
        stream.set_read_timeout(Some(GLANCE)).unwrap();
        let _ = stream.write_all(&bytes);
        let _ = stream.read(&mut [0; 1_000]);
    }

    // Session streams of a stranger: what is no handshake, and what stops in the middle of one.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (net, stop) = stranger(&address).await;
        for bytes in openings() {
            let opened = async {
                loop {
                    // The first may come before the connection does.
                    if let Ok(stream) = net.open_session(node).await {
                        return stream;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let mut stream = tokio::time::timeout(Duration::from_secs(30), opened).await.unwrap();
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            let _ = tokio::time::timeout(GLANCE, stream.read(&mut [0; 1_000])).await;
        }
        serves(&consumer);
        stop.cancel();
    });
    serves(&consumer);
    stayed_small(before, provider.node().id());
}
