//! The gateway over a real loopback socket, in front of a scripted node.
//!
//! Owns: the interface as clients see it: bytes in, bytes out.
//! Must not: call anything of the gateway but its public interface.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod answers;
mod connections;
mod door;
mod fake;
mod hostile;
mod official_client;
mod refusals;
mod requests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cocoon_gateway::{Options, ServeError, serve};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use fake::{Fake, MODEL, Script};

/// Ends a test that hangs; no test waits for it.
const WATCHDOG: Duration = Duration::from_secs(60);

/// `future`, unless it never comes.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(WATCHDOG, future).await.unwrap()
}

/// A gateway at a port of its own.
struct Server {
    address: SocketAddr,
    fake: Arc<Fake>,
    client: reqwest::Client,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

/// An answer that has been read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// OpenAI's error: status, code and parameter.
    fn error(&self) -> (u16, String, Option<String>) {
        let body = self.json();
        let error = &body["error"];
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{body}");
        assert!(error["type"].is_string(), "{body}");
        let code = error["code"].as_str().unwrap().to_owned();
        (self.status.as_u16(), code, error["param"].as_str().map(str::to_owned))
    }

    /// The `data:` lines of a stream, without comments.
    fn events(&self) -> Vec<&str> {
        let lines = self.text.split("\n\n").filter(|event| !event.is_empty());
        lines.filter_map(|event| event.strip_prefix("data: ")).collect()
    }
}

impl Server {
    async fn start(script: Script) -> Self {
        Self::start_with(script, Options::default()).await
    }

    async fn start_with(script: Script, options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (fake, shutdown) = (Arc::new(Fake::new(script)), CancellationToken::new());
        let task = tokio::spawn(serve(listener, fake.clone(), options, shutdown.clone()));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { address, fake, client, shutdown, task }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = soon(request.send()).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: soon(response.text()).await.unwrap() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(self.client.get(self.url(path))).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.client.post(self.url(path)).json(body)).await
    }

    /// Posts a chat request: the plain one with these fields changed or added.
    async fn chat(&self, change: Value) -> Answer {
        self.post("/v1/chat/completions", &chat_body(change)).await
    }

    async fn completion(&self, change: Value) -> Answer {
        let body = changed(json!({ "model": MODEL, "prompt": "Once upon" }), change);
        self.post("/v1/completions", &body).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a connection of their own and reads until the server closes it.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(bytes).await;
        read_to_end(&mut stream).await
    }
}

/// Whatever the server still sends, until it closes or resets the connection.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let (mut all, mut piece) = (Vec::new(), vec![0; 65_536]);
    while let Ok(count @ 1..) = soon(stream.read(&mut piece)).await {
        all.extend_from_slice(&piece[..count]);
    }
    String::from_utf8(all).unwrap()
}

/// Reads until `mark` has come.
async fn read_until(stream: &mut TcpStream, mark: &str) -> String {
    let (mut all, mut piece) = (Vec::new(), vec![0; 4096]);
    let read = async {
        loop {
            let count = stream.read(&mut piece).await.unwrap();
            assert!(count > 0, "the server closed the connection before `{mark}`");
            all.extend_from_slice(&piece[..count]);
            if all.windows(mark.len()).any(|window| window == mark.as_bytes()) {
                return String::from_utf8_lossy(&all).into_owned();
            }
        }
    };
    soon(read).await
}

fn chat_body(change: Value) -> Value {
    let plain = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "Say hi" }] });
    changed(plain, change)
}

fn changed(mut body: Value, change: Value) -> Value {
    let Value::Object(change) = change else { unreachable!("a change is an object") };
    body.as_object_mut().unwrap().extend(change);
    body
}

/// A chat request as it stands on the wire.
fn raw_chat(change: Value) -> String {
    let body = chat_body(change).to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
