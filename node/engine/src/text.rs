//! From token bytes to text that is safe to deliver: whole characters, and nothing of a stop string.
//!
//! Owns: the bytes of an incomplete character and the text in which a stop string may be forming.
//! Must not: count tokens.

/// The text of one completion as it grows.
#[derive(Debug)]
pub(crate) struct CompletionText {
    stops: Vec<String>,
    /// An incomplete UTF-8 sequence: at most three bytes.
    partial: Vec<u8>,
    /// Text held back because a stop string may begin in it: shorter than the longest stop string.
    held: String,
}

/// What one more token made certain.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Certain {
    /// Text to deliver.
    pub(crate) text: String,
    /// A stop string is complete: the completion ends with `text`.
    pub(crate) stopped: bool,
}

impl CompletionText {
    /// An empty completion that ends before the first of `stops` (none of them empty).
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, partial: Vec::new(), held: String::new() }
    }

    /// Adds the bytes of one token. Bytes that are no UTF-8 become U+FFFD, as everywhere.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Certain {
        self.partial.extend_from_slice(bytes);
        let complete = take_complete(&mut self.partial);
        self.held.push_str(&complete);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            self.partial.clear();
            return Certain { text: std::mem::take(&mut self.held), stopped: true };
        }
        let kept = self.stops.iter().map(|stop| longest_prefix_at_end(&self.held, stop)).max();
        let split = self.held.len().saturating_sub(kept.unwrap_or(0));
        let rest = self.held.split_off(split);
        Certain { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// All that was held back, for a completion that ends otherwise than by a stop string.
    pub(crate) fn finish(&mut self) -> String {
        let mut text = std::mem::take(&mut self.held);
        text.push_str(&String::from_utf8_lossy(&self.partial));
        self.partial.clear();
        text
    }
}

/// Takes all whole characters from the front of `bytes` and leaves an incomplete one.
fn take_complete(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut consumed = 0_usize;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        consumed = consumed.saturating_add(chunk.valid().len());
        let invalid = chunk.invalid();
        let at_end = consumed.saturating_add(invalid.len()) == bytes.len();
        if invalid.is_empty() || (at_end && may_become_a_character(invalid)) {
            break;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        consumed = consumed.saturating_add(invalid.len());
    }
    bytes.drain(..consumed);
    text
}

fn may_become_a_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// Length of the longest proper prefix of `stop` with which `text` ends.
fn longest_prefix_at_end(text: &str, stop: &str) -> usize {
    stop.char_indices()
        .map(|(at, _)| at)
        .rev()
        .find(|&at| stop.get(..at).is_some_and(|prefix| text.ends_with(prefix)))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stops(stops: &[&str]) -> CompletionText {
        CompletionText::new(stops.iter().map(|&stop| stop.to_owned()).collect())
    }

    #[test]
    fn a_character_that_spans_tokens_is_delivered_whole() {
        let mut text = stops(&[]);
        let [first, second, third, fourth] = "🦀".as_bytes() else { panic!() };
        assert_eq!(text.push(&[b'a', *first]).text, "a");
        assert_eq!(text.push(&[*second, *third]).text, "");
        assert_eq!(text.push(&[*fourth, b'b']).text, "🦀b");
        assert_eq!(text.finish(), "");
    }

    #[test]
    fn a_stop_string_that_spans_tokens_is_never_delivered() {
        let mut text = stops(&["###"]);
        assert_eq!(text.push(b"a#"), Certain { text: "a".into(), stopped: false });
        assert_eq!(text.push(b"#b"), Certain { text: "##b".into(), stopped: false });
        assert_eq!(text.push(b"##"), Certain { text: String::new(), stopped: false });
        assert_eq!(text.push(b"#rest"), Certain { text: String::new(), stopped: true });
    }

    #[test]
    fn the_earliest_stop_string_wins() {
        let mut text = stops(&["later", "now"]);
        assert_eq!(text.push(b"end now or later"), Certain { text: "end ".into(), stopped: true });
    }

    #[test]
    fn a_held_beginning_of_a_stop_string_is_delivered_at_the_end() {
        let mut text = stops(&["stop!"]);
        assert_eq!(text.push(b"sto").text, "");
        assert_eq!(text.push(&[0xf0, 0x9f]).text, "");
        assert_eq!(text.finish(), "sto\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_text_of_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            pieces in prop::collection::vec(1_usize..5, 1..60),
        ) {
            let mut text = stops(&[]);
            let (mut delivered, mut rest) = (String::new(), bytes.as_slice());
            for piece in pieces.iter().cycle() {
                if rest.is_empty() { break; }
                let (front, back) = rest.split_at((*piece).min(rest.len()));
                delivered.push_str(&text.push(front).text);
                rest = back;
            }
            delivered.push_str(&text.finish());
            prop_assert_eq!(delivered, String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn what_is_delivered_is_the_text_before_the_first_stop_string(
            whole in "[ab]{0,30}", stop in "[ab]{1,4}", cut in 1_usize..4,
        ) {
            let mut text = stops(&[&stop]);
            let (mut delivered, mut stopped) = (String::new(), false);
            for piece in whole.as_bytes().chunks(cut) {
                let certain = text.push(piece);
                delivered.push_str(&certain.text);
                stopped = certain.stopped;
                if stopped { break; }
            }
            if !stopped { delivered.push_str(&text.finish()); }
            let expected = whole.split(stop.as_str()).next().unwrap();
            prop_assert_eq!(delivered, expected);
            prop_assert_eq!(stopped, whole.contains(&stop));
        }
    }
}
