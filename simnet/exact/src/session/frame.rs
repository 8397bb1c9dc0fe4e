//! Frames of a session as they travel: the message's real bytes, and filler for what is modelled.
//!
//! Owns: the layout `u32be message ‖ u32be filler ‖ message ‖ zeros`, its bounds, and what the real
//! channel would have added.
//! Must not: know what a message means.

use cocoon_protocol::limits::FRAME_BYTES;

/// Bytes of the two lengths.
pub(super) const HEADER: usize = 8;
/// What the node's channel adds to a frame: `kind ‖ u32be length`, and a TLS 1.3 record's header,
/// content type and tag (RFC 8446, section 5.2).
const OVERHEAD: usize = 5 + RECORD_OVERHEAD;
const RECORD_OVERHEAD: usize = 22;
/// Text in one TLS record; a longer frame needs more records.
const RECORD: usize = 16_384;
/// Filler that a frame may have: a prompt of the longest context, with room.
const FILLER_BYTES: usize = 16 << 20;

/// A frame is not what this end could have been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame is longer than allowed")]
pub(crate) struct TooLong;

/// The bytes of a frame that is as long as the real one: with `padding` bytes of text that is not
/// simulated, and with what the channel would have added.
pub(crate) fn encode(message: &[u8], padding: u32) -> Vec<u8> {
    let text = usize::try_from(padding).unwrap_or(usize::MAX).min(FILLER_BYTES / 2);
    let records = message.len().saturating_add(text) / RECORD;
    let added = OVERHEAD.saturating_add(records.saturating_mul(RECORD_OVERHEAD));
    raw(message, text.saturating_add(added).saturating_sub(HEADER))
}

/// A frame of `length` bytes in all, or the shortest that holds the message.
pub(crate) fn of_length(message: &[u8], length: usize) -> Vec<u8> {
    raw(message, length.saturating_sub(message.len()).saturating_sub(HEADER))
}

fn raw(message: &[u8], filler: usize) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let whole = HEADER.saturating_add(message.len()).saturating_add(filler);
    let mut frame = Vec::with_capacity(whole);
    frame.extend_from_slice(&length(message.len()));
    frame.extend_from_slice(&length(filler));
    frame.extend_from_slice(message);
    frame.resize(whole, 0);
    frame
}

/// Bytes that follow these lengths; `None` when they are out of bounds.
pub(super) fn rest_of(lengths: [u8; HEADER]) -> Option<usize> {
    let (message, filler) = lengths.split_at(HEADER / 2);
    let message = length(message).filter(|bytes| *bytes <= FRAME_BYTES)?;
    let filler = length(filler).filter(|bytes| *bytes <= FILLER_BYTES)?;
    message.checked_add(filler)
}

/// Collects bytes until a frame is complete; filler is counted and not kept.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of filler still to come before the message in `ready` counts as arrived.
    filler: usize,
    ready: Option<Vec<u8>>,
}

impl Decoder {
    /// More bytes came.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        if self.buffer.is_empty() && self.filler > 0 {
            let skipped = self.filler.min(bytes.len());
            self.filler = self.filler.saturating_sub(skipped);
            bytes = bytes.get(skipped..).unwrap_or_default();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message that has arrived whole, its filler included.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        if self.ready.is_none() {
            let Some((lengths, rest)) = self.buffer.split_first_chunk::<HEADER>() else {
                return Ok(None);
            };
            let (message, filler) = lengths.split_at(HEADER / 2);
            let message = length(message).filter(|bytes| *bytes <= FRAME_BYTES).ok_or(TooLong)?;
            let filler = length(filler).filter(|bytes| *bytes <= FILLER_BYTES).ok_or(TooLong)?;
            let Some(body) = rest.get(..message) else {
                return Ok(None);
            };
            self.ready = Some(body.to_vec());
            self.filler = filler;
            self.buffer.drain(..HEADER.saturating_add(message));
        }
        let skipped = self.filler.min(self.buffer.len());
        self.buffer.drain(..skipped);
        self.filler = self.filler.saturating_sub(skipped);
        Ok(if self.filler == 0 { self.ready.take() } else { None })
    }
}

fn length(bytes: &[u8]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(bytes.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_long_as_the_real_one() {
        // `kind`, length and one TLS record around 100 bytes.
        assert_eq!(encode(&[7; 100], 0).len(), 100 + 27);
        assert_eq!(encode(&[7; 100], 1_000).len(), 1_100 + 27);
        // 40,000 bytes need three records.
        assert_eq!(encode(&[7; 20_000], 20_000).len(), 40_000 + 27 + 2 * 22);
        assert_eq!(of_length(&[7; 10], 1_500).len(), 1_500);
        assert_eq!(of_length(&[7; 10], 5).len(), 18, "never shorter than what it carries");
    }

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let frames = [encode(b"one", 5_000), encode(b"", 0), encode(b"three", 1)].concat();
        for cut in [1, 2, 3, 7, 64, 1_000, 10_000] {
            let mut decoder = Decoder::default();
            let mut heard = Vec::new();
            for piece in frames.chunks(cut) {
                decoder.push(piece);
                while let Some(message) = decoder.next().unwrap() {
                    heard.push(message);
                }
            }
            assert_eq!(heard, [b"one".to_vec(), Vec::new(), b"three".to_vec()], "cut at {cut}");
        }
    }

    #[test]
    fn a_message_has_not_arrived_before_its_filler() {
        let frame = encode(b"text", 100);
        let mut decoder = Decoder::default();
        decoder.push(&frame[..frame.len() - 1]);
        assert_eq!(decoder.next(), Ok(None));
        decoder.push(&frame[frame.len() - 1..]);
        assert_eq!(decoder.next(), Ok(Some(b"text".to_vec())));
    }

    #[test]
    fn lengths_out_of_bounds_are_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&[0xff; 16]);
        assert_eq!(decoder.next(), Err(TooLong));
    }
}
