//! A small HTTP client that sees a stream's every event, and can leave in the middle of it.
//!
//! Owns: HTTP/1.0, whose bodies end with the connection. Must not: retry anything.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

/// A read that takes longer is a hang.
const SILENCE: Duration = Duration::from_secs(90);

/// A streamed question of so many words, which the echo engine repeats.
pub(crate) fn words(model: &str, count: usize) -> Value {
    let text: Vec<_> = (0..count).map(|at| format!("w{at}")).collect();
    question(model, &text.join(" "), count + 10)
}

/// A streamed question with an answer of at most so many tokens.
pub(crate) fn question(model: &str, text: &str, most: usize) -> Value {
    json!({
        "model": model,
        "stream": true,
        "temperature": 0,
        "max_completion_tokens": most,
        "messages": [{ "role": "user", "content": text }],
    })
}

/// An answer whose body is still to be read. Dropping it closes the connection.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    body: BufReader<TcpStream>,
}

/// A whole stream.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    pub(crate) text: String,
    pub(crate) finish: Option<String>,
    /// The `cocoon` object of the last event that had one.
    pub(crate) cocoon: Value,
    /// The error event, when the answer broke.
    pub(crate) error: Value,
    /// Whether it ended with `[DONE]`.
    pub(crate) done: bool,
}

impl Whole {
    /// What it cost, by its last event.
    #[track_caller]
    pub(crate) fn price(&self) -> u64 {
        self.cocoon["price_nanoton"].as_u64().unwrap_or_else(|| panic!("no price: {self:?}"))
    }
}

/// Sends bytes to a port of this machine.
pub(crate) fn send(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    stream.set_write_timeout(Some(SILENCE)).unwrap();
    // A server may refuse, and close, before it has read everything.
    let _ = stream.write_all(bytes);
    stream
}

/// One request.
pub(crate) fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n");
    head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    Answer::read(send(port, &[head.as_bytes(), body].concat()))
}

impl Answer {
    fn read(stream: TcpStream) -> Self {
        let mut body = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(body.read_line(&mut head).unwrap() > 0, "the answer has no head: {head:?}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_lowercase(), body }
    }

    /// The whole body as text.
    pub(crate) fn text(mut self) -> String {
        let mut text = String::new();
        self.body.read_to_string(&mut text).unwrap();
        text
    }

    /// The whole body as JSON.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// The code of a refusal with this status.
    #[track_caller]
    pub(crate) fn refusal(self, status: u16) -> Value {
        let seen = self.status;
        let text = self.text();
        assert_eq!(seen, status, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()["error"].take()
    }

    /// The next event's data; `None` at the end of the connection.
    fn data(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.body.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(data.trim_end().to_owned());
            }
        }
    }

    /// The next piece of text, added to `whole`; `None` at the end.
    pub(crate) fn next(&mut self, whole: &mut Whole) -> Option<String> {
        loop {
            let data = self.data()?;
            if data == "[DONE]" {
                whole.done = true;
                return None;
            }
            let mut event: Value = serde_json::from_str(&data).unwrap();
            if !event["cocoon"].is_null() {
                whole.cocoon = event["cocoon"].take();
            }
            if !event["error"].is_null() {
                whole.error = event["error"].take();
            }
            if let Some(reason) = event["choices"][0]["finish_reason"].as_str() {
                whole.finish = Some(reason.to_owned());
            }
            match event["choices"][0]["delta"]["content"].as_str() {
                Some(text) if !text.is_empty() => {
                    whole.text.push_str(text);
                    return Some(text.to_owned());
                }
                _ => {}
            }
        }
    }

    /// Reads pieces of text until `count` of them have come.
    #[track_caller]
    pub(crate) fn pieces(&mut self, count: usize) -> Whole {
        assert_eq!(self.status, 200, "{}", self.head);
        let mut whole = Whole::default();
        for _ in 0..count {
            assert!(self.next(&mut whole).is_some(), "the stream ended early: {whole:?}");
        }
        whole
    }

    /// Reads the stream to its end, after what was read of it.
    pub(crate) fn rest(mut self, mut whole: Whole) -> Whole {
        while self.next(&mut whole).is_some() {}
        whole
    }

    /// Reads a stream that must be complete.
    #[track_caller]
    pub(crate) fn whole(self) -> Whole {
        let status = self.status;
        if status != 200 {
            panic!("{status}: {}", self.text());
        }
        let whole = self.rest(Whole::default());
        assert!(whole.done && whole.error.is_null() && whole.finish.is_some(), "{whole:?}");
        whole
    }
}
