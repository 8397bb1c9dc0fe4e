//! ADNL over TCP: the encrypted stream between a liteserver and its clients, both ends.
//!
//! Owns: the handshake, the ciphers, the frames and their limits.
//! Must not: know what is inside a frame, or retry.
//!
//! As in TON's documentation, "ADNL TCP - Liteserver": the client sends 160 random bytes, which
//! become two AES-256-CTR keys and nonces, encrypted under a secret that both ends get by X25519
//! from the server's long-lived and the client's one-time Ed25519 key. A frame is a length, a
//! nonce of 32 bytes, the payload, and SHA-256 over both. The stream is for integrity against
//! accidents and for privacy; what a server says is believed only with a proof.

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use ed25519_dalek::{SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use zeroize::Zeroizing;

type Cipher = Ctr128BE<Aes256>;

/// `pub.ed25519`, which goes in front of a key before it is hashed to the key's short id.
const PUB_ED25519: [u8; 4] = 0x4813_b4c6_u32.to_le_bytes();
const NONCE: usize = 32;
const CHECKSUM: usize = 32;
const PARAMETERS: usize = 160;
const HANDSHAKE: usize = 32 + 32 + 32 + PARAMETERS;
/// A frame may not be longer. The longest honest answer is all configuration parameters of the
/// main network, about 1 MiB; a block is at most 4 MiB.
pub const FRAME_BYTES: usize = 8 << 20;
/// What a client may send: a message of 64 KiB and its frame.
pub const QUERY_BYTES: usize = 128 << 10;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    /// No random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// The key that the settings give for the server is none.
    #[error("the server's key is no Ed25519 key")]
    BadKey,
    /// The client wants another server than this.
    #[error("the client wants to reach another key than this server's")]
    OtherServer,
    /// The frame is longer than allowed.
    #[error("a frame is longer than is allowed")]
    TooLong,
    /// The other end does not hold the key, or the bytes were changed on the way.
    #[error("the stream cannot be decrypted: the other end does not hold the expected key")]
    BadChecksum,
}

/// The short id of a key: SHA-256 over its TL form.
pub fn key_id(key: &VerifyingKey) -> [u8; 32] {
    Sha256::new().chain_update(PUB_ED25519).chain_update(key.as_bytes()).finalize().into()
}

/// The two directions of a stream.
#[derive(Debug)]
pub struct Stream<R = OwnedReadHalf, W = OwnedWriteHalf> {
    /// What the other end sends.
    pub incoming: Incoming<R>,
    /// What goes to the other end.
    pub outgoing: Outgoing<W>,
}

impl Stream {
    /// Opens a stream to the server that holds `server`, over a fresh connection.
    ///
    /// # Errors
    ///
    /// When the connection fails, or the other end does not hold the key.
    pub async fn connect(tcp: TcpStream, server: &VerifyingKey) -> Result<Self, StreamError> {
        let _ = tcp.set_nodelay(true);
        let (reader, writer) = tcp.into_split();
        client(reader, writer, server).await
    }

    /// Accepts a client's stream as the holder of `key`.
    ///
    /// # Errors
    ///
    /// When the connection fails, or the client wants another key.
    pub async fn accept(tcp: TcpStream, key: &SigningKey) -> Result<Self, StreamError> {
        let _ = tcp.set_nodelay(true);
        let (reader, writer) = tcp.into_split();
        server(reader, writer, key).await
    }
}

/// 160 bytes: the server's key, the client's key, then the nonces of the same two.
struct Parameters(Zeroizing<[u8; PARAMETERS]>);

impl Parameters {
    fn part<const N: usize>(&self, at: usize) -> Zeroizing<[u8; N]> {
        let mut part = Zeroizing::new([0; N]);
        if let Some(from) = self.0.get(at..at + N) {
            part.copy_from_slice(from);
        }
        part
    }

    /// What the server encrypts with.
    fn servers_cipher(&self) -> Cipher {
        Cipher::new((&*self.part::<32>(0)).into(), (&*self.part::<16>(64)).into())
    }

    /// What the client encrypts with.
    fn clients_cipher(&self) -> Cipher {
        Cipher::new((&*self.part::<32>(32)).into(), (&*self.part::<16>(80)).into())
    }
}

/// The cipher of the handshake, from the shared secret and the parameters' checksum.
fn handshake_cipher(secret: &[u8; 32], checksum: &[u8; 32]) -> Cipher {
    let mut key = Zeroizing::new([0; 32]);
    let mut nonce = [0; 16];
    let parts = key.iter_mut().zip(secret.iter().take(16).chain(checksum.iter().skip(16)));
    parts.for_each(|(to, from)| *to = *from);
    let parts = nonce.iter_mut().zip(checksum.iter().take(4).chain(secret.iter().skip(20)));
    parts.for_each(|(to, from)| *to = *from);
    Cipher::new((&*key).into(), (&nonce).into())
}

fn shared_secret(own: &SigningKey, other: &VerifyingKey) -> Zeroizing<[u8; 32]> {
    let scalar = Zeroizing::new(own.to_scalar_bytes());
    Zeroizing::new(other.to_montgomery().mul_clamped(*scalar).to_bytes())
}

async fn client<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    reader: R,
    mut writer: W,
    server: &VerifyingKey,
) -> Result<Stream<R, W>, StreamError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|_| StreamError::Random)?;
    let own = SigningKey::from_bytes(&seed);
    let mut parameters = Parameters(Zeroizing::new([0; PARAMETERS]));
    getrandom::fill(parameters.0.as_mut()).map_err(|_| StreamError::Random)?;
    let checksum: [u8; 32] = Sha256::digest(parameters.0.as_ref()).into();
    let mut encrypted = *parameters.0;
    handshake_cipher(&shared_secret(&own, server), &checksum).apply_keystream(&mut encrypted);
    let mut hello = Vec::with_capacity(HANDSHAKE);
    hello.extend_from_slice(&key_id(server));
    hello.extend_from_slice(own.verifying_key().as_bytes());
    hello.extend_from_slice(&checksum);
    hello.extend_from_slice(&encrypted);
    writer.write_all(&hello).await?;
    let mut stream = Stream {
        incoming: Incoming { reader, cipher: parameters.servers_cipher(), limit: FRAME_BYTES },
        outgoing: Outgoing { writer, cipher: parameters.clients_cipher() },
    };
    // The server's first frame is empty; only the holder of the key can make it.
    stream.incoming.receive().await?;
    Ok(stream)
}

async fn server<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    mut reader: R,
    writer: W,
    key: &SigningKey,
) -> Result<Stream<R, W>, StreamError> {
    let mut wanted = [0; 32];
    let mut client = [0; 32];
    let mut checksum = [0; 32];
    let mut parameters = Parameters(Zeroizing::new([0; PARAMETERS]));
    reader.read_exact(&mut wanted).await?;
    if wanted != key_id(&key.verifying_key()) {
        return Err(StreamError::OtherServer);
    }
    reader.read_exact(&mut client).await?;
    reader.read_exact(&mut checksum).await?;
    reader.read_exact(parameters.0.as_mut()).await?;
    let client = VerifyingKey::from_bytes(&client).map_err(|_| StreamError::BadKey)?;
    let secret = shared_secret(key, &client);
    handshake_cipher(&secret, &checksum).apply_keystream(parameters.0.as_mut());
    if checksum != <[u8; 32]>::from(Sha256::digest(parameters.0.as_ref())) {
        return Err(StreamError::BadChecksum);
    }
    let mut stream = Stream {
        incoming: Incoming { reader, cipher: parameters.clients_cipher(), limit: QUERY_BYTES },
        outgoing: Outgoing { writer, cipher: parameters.servers_cipher() },
    };
    stream.outgoing.send(&[]).await?;
    Ok(stream)
}

/// Frames from the other end.
pub struct Incoming<R> {
    reader: R,
    cipher: Cipher,
    limit: usize,
}

/// Frames to the other end.
pub struct Outgoing<W> {
    writer: W,
    cipher: Cipher,
}

impl<R> std::fmt::Debug for Incoming<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl<W> std::fmt::Debug for Outgoing<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
    }
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    /// The payload of the next frame. Not to be continued after it was dropped half-way.
    ///
    /// # Errors
    ///
    /// When the connection ends, the frame is too long, or its checksum is wrong.
    pub async fn receive(&mut self) -> Result<Vec<u8>, StreamError> {
        let mut length = [0; 4];
        self.reader.read_exact(&mut length).await?;
        self.cipher.apply_keystream(&mut length);
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length < NONCE + CHECKSUM {
            return Err(StreamError::BadChecksum);
        }
        if length > self.limit {
            return Err(StreamError::TooLong);
        }
        let mut frame = vec![0; length];
        self.reader.read_exact(&mut frame).await?;
        self.cipher.apply_keystream(&mut frame);
        let (covered, checksum) = frame.split_at(length - CHECKSUM);
        if <[u8; 32]>::from(Sha256::digest(covered)) != checksum {
            return Err(StreamError::BadChecksum);
        }
        Ok(covered.get(NONCE..).unwrap_or_default().to_vec())
    }
}

impl<W: AsyncWrite + Unpin> Outgoing<W> {
    /// Sends a frame. Not to be continued after it was dropped half-way.
    ///
    /// # Errors
    ///
    /// When the connection ends, or the payload is too long for a frame.
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), StreamError> {
        let length = NONCE + payload.len() + CHECKSUM;
        if length > FRAME_BYTES {
            return Err(StreamError::TooLong);
        }
        let announced = u32::try_from(length).map_err(|_| StreamError::TooLong)?;
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| StreamError::Random)?;
        let checksum = Sha256::new().chain_update(nonce).chain_update(payload).finalize();
        let mut frame = Vec::with_capacity(4 + length);
        frame.extend_from_slice(&announced.to_le_bytes());
        frame.extend_from_slice(&nonce);
        frame.extend_from_slice(payload);
        frame.extend_from_slice(&checksum);
        self.cipher.apply_keystream(&mut frame);
        self.writer.write_all(&frame).await?;
        self.writer.flush().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[tokio::test]
    async fn both_ends_understand_each_other() {
        let (here, there) = tokio::io::duplex(1 << 20);
        let (r1, w1) = tokio::io::split(here);
        let (r2, w2) = tokio::io::split(there);
        let holder = key(1);
        let public = holder.verifying_key();
        let (client, server) = tokio::join!(client(r1, w1, &public), server(r2, w2, &holder));
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        for length in [0, 1, 300, 70_000] {
            let payload = vec![7; length];
            client.outgoing.send(&payload).await.unwrap();
            assert_eq!(server.incoming.receive().await.unwrap(), payload);
            server.outgoing.send(&payload).await.unwrap();
            assert_eq!(client.incoming.receive().await.unwrap(), payload);
        }
    }

    #[tokio::test]
    async fn a_server_without_the_key_is_noticed() {
        let (here, there) = tokio::io::duplex(1 << 20);
        let (r1, w1) = tokio::io::split(here);
        let (r2, w2) = tokio::io::split(there);
        let (expected, other) = (key(1).verifying_key(), key(2));
        let (client, server) = tokio::join!(client(r1, w1, &expected), server(r2, w2, &other));
        assert!(matches!(server, Err(StreamError::OtherServer)));
        assert!(matches!(client, Err(StreamError::Io(_))), "{client:?}");
    }

    #[tokio::test]
    async fn a_changed_byte_and_a_long_frame_end_the_stream() {
        let (here, there) = tokio::io::duplex(1 << 20);
        let (r1, w1) = tokio::io::split(here);
        let (r2, w2) = tokio::io::split(there);
        let holder = key(1);
        let public = holder.verifying_key();
        let (client, server) = tokio::join!(client(r1, w1, &public), server(r2, w2, &holder));
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        client.outgoing.send(&vec![0; QUERY_BYTES]).await.unwrap();
        assert!(matches!(server.incoming.receive().await, Err(StreamError::TooLong)));
        server.outgoing.writer.write_all(&[0; 200]).await.unwrap();
        let failed = client.incoming.receive().await;
        assert!(
            matches!(failed, Err(StreamError::BadChecksum | StreamError::TooLong)),
            "{failed:?}"
        );
    }
}
