//! What the whole path is compared with: a server that streams the same answer, and a plain reverse
//! proxy in front of it. HTTP/1.1, no TLS, no attestation, no payment, no check of anything.
//!
//! Owns: these two servers. Must not: be more than a yardstick.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A body that another task writes.
struct Written(mpsc::Receiver<Bytes>);

impl Body for Written {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

/// The listener's address on standard output, for whoever started this process.
async fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    listener
}

/// Streams an answer of `tokens` words, each after a pause of `pace`, in the gateway's form.
pub(crate) async fn serve_origin(tokens: usize, pace: Duration) {
    let listener = listen().await;
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let answer = service_fn(move |request: Request<Incoming>| async move {
            let mut body = request.into_body();
            while std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.is_some() {}
            let (parts, receiver) = mpsc::channel(32);
            tokio::spawn(write(parts, tokens, pace));
            let response = Response::builder().header("content-type", "text/event-stream");
            response.body(Written(receiver))
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(connection);
    }
}

async fn write(parts: mpsc::Sender<Bytes>, tokens: usize, pace: Duration) {
    let chunk = |delta: &str, end: &str| {
        Bytes::from(format!(
            "data: {{\"id\":\"chatcmpl-{:064}\",\"object\":\"chat.completion.chunk\",\
             \"created\":1800000000,\"model\":\"echo\",\"choices\":[{{\"index\":0,\
             \"delta\":{{{delta}}},\"finish_reason\":{end}}}]}}\n\n",
            0
        ))
    };
    let mut sent = parts.send(chunk(r#""role":"assistant","content":"""#, "null")).await;
    for word in 0..tokens {
        tokio::time::sleep(pace).await;
        let space = if word == 0 { "" } else { " " };
        sent = sent.and(parts.send(chunk(&format!("\"content\":\"{space}word\""), "null")).await);
    }
    sent = sent.and(parts.send(chunk("", "\"stop\"")).await);
    // A reader that left early has what it wanted.
    let _left = sent.and(parts.send(Bytes::from_static(b"data: [DONE]\n\n")).await);
}

/// Idle connections to the upstream server.
type Idle = Arc<Mutex<Vec<SendRequest<Incoming>>>>;

/// Passes every request on to `upstream`, over connections that are kept.
pub(crate) async fn serve_proxy(upstream: &str) {
    let (listener, idle) = (listen().await, Idle::default());
    let upstream: Arc<str> = upstream.into();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (idle, upstream) = (Arc::clone(&idle), Arc::clone(&upstream));
        let pass = service_fn(move |request: Request<Incoming>| {
            let (idle, upstream) = (Arc::clone(&idle), Arc::clone(&upstream));
            async move { forward(request, &idle, &upstream).await }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), pass);
        tokio::spawn(connection);
    }
}

async fn forward(
    request: Request<Incoming>,
    idle: &Idle,
    upstream: &str,
) -> Result<Response<Incoming>, hyper::Error> {
    let ready = {
        let mut idle = idle.lock().unwrap();
        let ready = idle.iter().position(SendRequest::is_ready);
        ready.map(|ready| idle.swap_remove(ready))
    };
    let mut sender = match ready {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(upstream).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender
        }
    };
    let response = sender.send_request(request).await?;
    // It becomes ready again when the answer was read to its end.
    idle.lock().unwrap().push(sender);
    Ok(response)
}
