//! Frames inside the TLS stream: `kind ‖ u32be(length) ‖ payload`.
//!
//! Owns: the header and the bounds, checked before anything is allocated.
//! Must not: interpret payloads.

use bytes::{Buf as _, Bytes, BytesMut};
use cocoon_protocol::attest::AttestRequest;
use cocoon_protocol::limits;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::channel::error::{ChannelError, Misbehaviour, from_io};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The application's bytes.
    Application,
    /// A challenge.
    AttestRequest,
    /// The answer to one.
    AttestResponse,
    /// The answer that this end cannot attest at the moment; empty.
    AttestUnable,
    /// A provider's word that it refuses the consumer's evidence; empty, for the reason is its own.
    AttestRefused,
    /// A provider's word that the consumer's evidence satisfies it; empty.
    AttestAccepted,
}

impl Kind {
    const fn as_byte(self) -> u8 {
        match self {
            Self::Application => 0,
            Self::AttestRequest => 1,
            Self::AttestResponse => 2,
            Self::AttestUnable => 3,
            Self::AttestRefused => 4,
            Self::AttestAccepted => 5,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Application),
            1 => Some(Self::AttestRequest),
            2 => Some(Self::AttestResponse),
            3 => Some(Self::AttestUnable),
            4 => Some(Self::AttestRefused),
            5 => Some(Self::AttestAccepted),
            _ => None,
        }
    }

    const fn limit(self) -> usize {
        match self {
            Self::Application => limits::FRAME_BYTES,
            Self::AttestRequest => AttestRequest::BYTES,
            Self::AttestResponse => limits::ATTEST_RESPONSE_BYTES,
            Self::AttestUnable | Self::AttestRefused | Self::AttestAccepted => 0,
        }
    }
}

const HEADER_BYTES: usize = 5;
/// Memory is reserved in steps of this size as bytes arrive, so that a peer who announces a large
/// frame and sends nothing holds nothing.
const READ_STEP: usize = 16_384;
/// Payloads up to this size are copied out, so that they do not keep a large buffer alive.
const COPY_BELOW: usize = 4_096;

/// Reads frames off a stream.
pub(super) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame's kind and length, within its bound; `None` when the peer ended the stream
    /// between frames. Call [`Self::payload`] next.
    pub(super) async fn header(&mut self) -> Result<Option<(Kind, usize)>, ChannelError> {
        while self.buffer.len() < HEADER_BYTES {
            if !self.fill(HEADER_BYTES).await? {
                let whole = self.buffer.is_empty();
                return if whole { Ok(None) } else { Err(Misbehaviour::Truncated.into()) };
            }
        }
        let kind = Kind::from_byte(self.buffer.get_u8()).ok_or(Misbehaviour::UnknownFrame)?;
        let length = usize::try_from(self.buffer.get_u32())
            .ok()
            .filter(|length| *length <= kind.limit())
            .ok_or(Misbehaviour::FrameTooLong)?;
        Ok(Some((kind, length)))
    }

    /// The payload that the last header announced.
    pub(super) async fn payload(&mut self, length: usize) -> Result<Bytes, ChannelError> {
        while self.buffer.len() < length {
            if !self.fill(length).await? {
                return Err(Misbehaviour::Truncated.into());
            }
        }
        if length <= COPY_BELOW {
            let payload = Bytes::copy_from_slice(self.buffer.get(..length).unwrap_or_default());
            self.buffer.advance(length);
            return Ok(payload);
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    /// Reads once towards `wanted` bytes in the buffer; false at the end of the stream.
    async fn fill(&mut self, wanted: usize) -> Result<bool, ChannelError> {
        let missing = wanted.saturating_sub(self.buffer.len());
        self.buffer.reserve(missing.clamp(HEADER_BYTES, READ_STEP));
        let read = self.stream.read_buf(&mut self.buffer).await;
        Ok(read.map_err(|error| from_io(&error))? > 0)
    }
}

/// Writes one frame; the caller flushes.
pub(super) async fn write_frame<W: AsyncWrite + Unpin>(
    stream: &mut W,
    kind: Kind,
    payload: &[u8],
) -> Result<(), ChannelError> {
    let length = u32::try_from(payload.len()).map_err(|_| ChannelError::FrameTooLong)?;
    let mut header = [kind.as_byte(), 0, 0, 0, 0];
    if let Some(place) = header.last_chunk_mut::<4>() {
        *place = length.to_be_bytes();
    }
    stream.write_all(&header).await.map_err(|error| from_io(&error))?;
    stream.write_all(payload).await.map_err(|error| from_io(&error))
}

/// Reads frames until the end, and gives back what writing them again makes: for fuzzers.
#[cfg(any(all(test, feature = "dev-tee"), feature = "fuzzing"))]
pub(crate) async fn rewrite(mut stream: &[u8]) -> (Vec<u8>, Result<(), ChannelError>) {
    let mut reader = FrameReader::new(&mut stream);
    let mut written = Vec::new();
    loop {
        let (kind, length) = match reader.header().await {
            Ok(Some(header)) => header,
            Ok(None) => return (written, Ok(())),
            Err(error) => return (written, Err(error)),
        };
        let frame = match reader.payload(length).await {
            Ok(payload) => write_frame(&mut written, kind, &payload).await,
            Err(error) => Err(error),
        };
        if let Err(error) = frame {
            return (written, Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn read_all(mut bytes: &[u8]) -> Result<Vec<(Kind, Bytes)>, ChannelError> {
        let mut reader = FrameReader::new(&mut bytes);
        let mut frames = Vec::new();
        while let Some((kind, length)) = reader.header().await? {
            frames.push((kind, reader.payload(length).await?));
        }
        Ok(frames)
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[tokio::test]
    async fn frames_have_golden_bytes() {
        let mut out = Vec::new();
        write_frame(&mut out, Kind::Application, b"hello").await.unwrap();
        write_frame(&mut out, Kind::AttestUnable, b"").await.unwrap();
        assert_eq!(out, b"\x00\x00\x00\x00\x05hello\x03\x00\x00\x00\x00");
        let expected = vec![
            (Kind::Application, Bytes::from_static(b"hello")),
            (Kind::AttestUnable, Bytes::new()),
        ];
        assert_eq!(read_all(&out).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn bounds_are_held_at_the_header() {
        for kind in [
            Kind::Application,
            Kind::AttestRequest,
            Kind::AttestResponse,
            Kind::AttestUnable,
            Kind::AttestRefused,
            Kind::AttestAccepted,
        ] {
            assert_eq!(Kind::from_byte(kind.as_byte()), Some(kind));
            let header = |length: usize| {
                let mut header = vec![kind.as_byte()];
                header.extend(u32::try_from(length).unwrap().to_be_bytes());
                header
            };
            let mut bytes = &header(kind.limit())[..];
            let read = FrameReader::new(&mut bytes).header().await;
            assert_eq!(read, Ok(Some((kind, kind.limit()))));
            let mut bytes = &header(kind.limit() + 1)[..];
            let mut reader = FrameReader::new(&mut bytes);
            assert_eq!(reader.header().await, Err(Misbehaviour::FrameTooLong.into()));
            assert!(reader.buffer.capacity() <= 2 * READ_STEP);
        }
        let unknown = read_all(&[9, 0, 0, 0, 0]).await;
        assert_eq!(unknown, Err(Misbehaviour::UnknownFrame.into()));
    }

    #[tokio::test]
    async fn an_announced_frame_reserves_no_memory_before_it_comes() {
        let mut bytes = &b"\x00\x00\x10\x00\x00tiny"[..];
        let mut reader = FrameReader::new(&mut bytes);
        let (_, length) = reader.header().await.unwrap().unwrap();
        assert_eq!(reader.payload(length).await, Err(Misbehaviour::Truncated.into()));
        assert!(reader.buffer.capacity() <= 4 * READ_STEP, "{}", reader.buffer.capacity());
    }

    proptest! {
        #[test]
        fn frames_survive_and_every_truncation_is_noticed(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6_000), 1..5),
            cut: prop::sample::Index,
        ) {
            let (bytes, ends) = run(async {
                let (mut out, mut ends) = (Vec::new(), vec![0]);
                for payload in &payloads {
                    write_frame(&mut out, Kind::Application, payload).await.unwrap();
                    ends.push(out.len());
                }
                (out, ends)
            });
            let read = run(read_all(&bytes)).unwrap();
            let read: Vec<_> = read.into_iter().map(|(_, payload)| payload.to_vec()).collect();
            prop_assert_eq!(read, payloads);
            let cut = cut.index(bytes.len());
            let truncated = run(read_all(&bytes[..cut]));
            prop_assert_eq!(truncated.is_ok(), ends.contains(&cut));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = run(read_all(&bytes));
        }
    }
}
