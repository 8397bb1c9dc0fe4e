//! One client's connection.
//!
//! Owns: HTTP/1.1 on a socket, its bounds, and the deadline for a client that stopped reading.
//! Must not: accept connections or know what is served on them.

use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// Bytes of a request's head, and of an answer that waits to be written; more of the former
/// answers 431, more of the latter makes the job wait.
const BUFFER_BYTES: usize = 65_536;
/// Headers of a request; more answers 431.
const HEADERS: usize = 100;

/// The deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// From the first moment, or the end of the last answer, to the end of a request's head.
    pub(crate) head: Duration,
    /// For a client to take any bytes of an answer that waits for it.
    pub(crate) write: Duration,
}

/// Serves one connection until it ends, or until `shutdown` and the end of the answer under way.
pub(crate) async fn serve(
    stream: TcpStream,
    router: Router,
    deadlines: Deadlines,
    shutdown: CancellationToken,
) -> hyper::Result<()> {
    let guarded = WriteDeadline { stream, allowance: deadlines.write, waiting: None };
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(deadlines.head)
        .max_buf_size(BUFFER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(guarded), service);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        ended = connection.as_mut() => return ended,
    }
    connection.await
}

/// A socket whose writes fail when the other end takes nothing for too long. Without it, a client
/// that stops reading but stays connected would hold its job, and the provider's place, for ever.
#[derive(Debug)]
struct WriteDeadline {
    stream: TcpStream,
    allowance: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl WriteDeadline {
    fn guard<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let allowance = self.allowance;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(allowance)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for WriteDeadline {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for WriteDeadline {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.guard(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.guard(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
