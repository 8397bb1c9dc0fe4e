//! What the first bytes of TLS say, read off the wire.
//!
//! Owns: no name, no ticket, no early data, no old version; both ends. Must not: trust rustls's word.

use super::*;
use tokio::io::AsyncReadExt as _;

/// One TLS record: its type and its content.
async fn record(stream: &mut DuplexStream) -> (u8, Vec<u8>) {
    let mut header = [0; 5];
    stream.read_exact(&mut header).await.unwrap();
    let mut content = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut content).await.unwrap();
    (header[0], content)
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// The extensions of a ClientHello (RFC 8446 §4.1.2), and where they begin.
fn extensions(hello: &[u8]) -> (Vec<(usize, &[u8])>, usize) {
    // Handshake header, version, random.
    let session = 4 + 2 + 32;
    let suites = session + 1 + usize::from(hello[session]);
    let compression = suites + 2 + u16_at(hello, suites);
    let begin = compression + 1 + usize::from(hello[compression]);
    let mut at = begin + 2;
    let mut found = Vec::new();
    while at < hello.len() {
        let (kind, length) = (u16_at(hello, at), u16_at(hello, at + 2));
        found.push((kind, &hello[at + 4..at + 4 + length]));
        at += 4 + length;
    }
    (found, begin)
}

async fn client_hello(world: &World) -> Vec<u8> {
    let (near, mut far) = duplex(64 * 1024);
    let connecting = tokio::spawn(connect(near, world.connect_options(Tier::Open)));
    let (kind, hello) = record(&mut far).await;
    connecting.abort();
    assert_eq!((kind, hello[0]), (22, 1), "a handshake record with a ClientHello");
    hello
}

#[tokio::test]
async fn the_hello_names_nobody_resumes_nothing_and_offers_nothing_old() {
    let world = World::open();
    let hello = client_hello(&world).await;
    let (extensions, _) = extensions(&hello);
    let find = |kind| extensions.iter().find(|(found, _)| *found == kind).map(|(_, body)| *body);
    for (kind, what) in
        [(0, "server_name"), (35, "session_ticket"), (41, "pre_shared_key"), (42, "early_data")]
    {
        assert_eq!(find(kind), None, "{what}");
    }
    // TLS 1.3 and nothing else.
    assert_eq!(find(43), Some(&[2, 3, 4][..]));
    // X25519MLKEM768 first, X25519 after it.
    assert_eq!(find(10), Some(&[0, 4, 0x11, 0xec, 0, 0x1d][..]));
    assert_eq!(find(16), Some(&b"\x00\x11\x10cocoon/session/1"[..]));
}

#[tokio::test]
async fn a_hello_without_tls_1_3_is_turned_away() {
    let world = World::open();
    let mut hello = client_hello(&world).await;
    // Without `supported_versions` the hello is one of TLS 1.2: its kind becomes one nobody knows.
    let (found, begin) = extensions(&hello);
    let mut at = begin + 2;
    for (kind, body) in &found {
        if *kind == 43 {
            break;
        }
        at += 4 + body.len();
    }
    assert_eq!(u16_at(&hello, at), 43);
    hello[at] = 0xfa;
    let (mut near, far) = duplex(64 * 1024);
    let accepting = tokio::spawn(accept(far, world.identity(), world.accept_options()));
    let length = u16::try_from(hello.len()).unwrap().to_be_bytes();
    near.write_all(&[&[22, 3, 1], &length[..], &hello].concat()).await.unwrap();
    // A fatal alert: protocol_version.
    assert_eq!(record(&mut near).await, (21, vec![2, 70]));
    assert!(matches!(accepting.await.unwrap(), Err(ChannelError::Tls(_))));
}

#[tokio::test]
async fn a_second_session_is_a_whole_handshake_again() {
    let world = World::open();
    let identity = world.identity();
    for config in {
        let issued = identity.current().await.unwrap();
        [Arc::clone(&issued.config), Arc::clone(&issued.demanding)]
    } {
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
        assert!(!config.session_storage.can_cache());
    }
    let reader = Arc::new(super::super::tls::CertificateReader::new(world.key.id(), START));
    let config = Arc::new(super::super::tls::client_config(reader, Arc::default()).unwrap());
    for _ in 0..2 {
        let (near, far) = duplex(64 * 1024);
        let accepting = tokio::spawn(accept(far, Arc::clone(&identity), world.accept_options()));
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
        let name = super::super::tls::server_name().unwrap();
        let tls = connector.connect(name, near).await.unwrap();
        let kind = tls.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
        accepting.abort();
    }
}
