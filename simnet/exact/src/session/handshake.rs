//! The start of a session: as many flights, bytes and milliseconds as the attested channel needs.
//!
//! Owns: the sizes, each with its source, and the order of the flights.
//! Must not: judge the evidence; the host does. No cryptography is run: its cost is a delay.
//!
//! The flights are those of `cocoon-attest`: TLS 1.3 with X25519MLKEM768 (hello; answer with the
//! provider's certificate; finished with the attestation request), and the answer with the
//! evidence. Nothing of the protocol travels before; so a session costs two round trips beyond the
//! stream that carries it.

use std::io;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use futures_timer::Delay;
use simnet_host::Evidence;

use super::frame::{self, Decoder};

/// A client's hello with a hybrid key share: 1,184 bytes of ML-KEM-768, 32 of X25519, and some 300
/// of extensions.
const CLIENT_HELLO: usize = 1_540;
/// The server's answer: 1,088 + 32 bytes of key share, extensions, a certificate of 450 bytes with
/// its Ed25519 key, its signature, and `Finished`. With the hello, 3.3 kB; measured with a quote of
/// 3.7 kB in the certificate: 7.0 kB.
const SERVER_FLIGHT: usize = 1_780;
/// `Finished` and the attestation request: a nonce, what is wanted, the policy's name.
const CLIENT_FINISHED: usize = 74 + 120;
/// An answer without a quote: tier open.
const OPEN_ANSWER: usize = 160;
/// An answer with a TDX quote (5,006 bytes) and its collateral (about 16 kB).
const QUOTED_ANSWER: usize = 5_006 + 16_000 + 160;
/// An honest end needs two round trips. As the channel has it: ten seconds for each step.
const DEADLINE: Duration = Duration::from_secs(20);

/// The consumer's side: the evidence that it was shown. `checking` is the time of its processor.
pub(crate) async fn connect<S>(stream: &mut S, checking: Duration) -> io::Result<Evidence>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    within(async {
        say(stream, &[], CLIENT_HELLO).await?;
        hear(stream).await?;
        say(stream, &[], CLIENT_FINISHED).await?;
        let answer = hear(stream).await?;
        let evidence = answer.as_slice().try_into().ok().and_then(Evidence::decode);
        let evidence = evidence.ok_or(io::ErrorKind::InvalidData)?;
        work(checking).await;
        Ok(evidence)
    })
    .await
}

/// The provider's side. `making` is the time of its processor and its TEE.
pub(crate) async fn accept<S>(stream: &mut S, shown: Evidence, making: Duration) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    within(async {
        hear(stream).await?;
        say(stream, &[], SERVER_FLIGHT).await?;
        hear(stream).await?;
        work(making).await;
        let length = if shown.tier == Tier::Open { OPEN_ANSWER } else { QUOTED_ANSWER };
        say(stream, &shown.encode(), length).await
    })
    .await
}

async fn work(time: Duration) {
    if !time.is_zero() {
        Delay::new(time).await;
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let work = std::pin::pin!(work);
    match futures::future::select(work, Delay::new(DEADLINE)).await {
        futures::future::Either::Left((done, _)) => done,
        futures::future::Either::Right(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, text: &[u8], length: usize) -> io::Result<()> {
    stream.write_all(&frame::of_length(text, length)).await?;
    stream.flush().await
}

/// The next flight. Reads no byte beyond it, because what follows is a session's frame: each end
/// waits for the other's flight, so only the last one may have company, and it is read exactly.
async fn hear<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut lengths = [0; frame::HEADER];
    stream.read_exact(&mut lengths).await?;
    let mut left = frame::rest_of(lengths).ok_or(io::ErrorKind::InvalidData)?;
    let mut decoder = Decoder::default();
    decoder.push(&lengths);
    let mut bytes = [0; 2_048];
    while left > 0 {
        let room = bytes.get_mut(..left.min(2_048)).unwrap_or_default();
        let read = stream.read(room).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        decoder.push(room.get(..read).unwrap_or_default());
        left = left.saturating_sub(read);
    }
    let flight = decoder.next().ok().flatten();
    flight.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
