//! The running node's end of the control socket.
//!
//! Owns: the socket file, its permissions, and the bounds on what a client can make the node do.
//! Must not: know how a request is answered.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    ANSWER_TIME, CONNECTIONS, ControlHandler, Envelope, REQUEST_BYTES, Refusal, Reply, Request,
    TRANSFER_TIME, VERSION,
};
use crate::data_folder::FILE_MODE;
use crate::shutdown::Tasks;

/// Pause after a failed accept: the process is out of file descriptors, and trying again at once
/// would burn a core until some are free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The path does not fit into a socket's address.
    #[error("the path {} is too long for a socket", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot make the control socket {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl BindError {
    /// What to do about it.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::PathTooLong { .. } => Some("choose a shorter `--data-dir` (about 90 bytes fit)"),
            Self::Io { .. } => None,
        }
    }
}

/// A bound control socket. Its file goes when it is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // A leftover is harmless: nobody answers on it, and the next node removes it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Server {
    /// Binds the socket. The caller holds the instance lock, so a socket that is already there
    /// belongs to a node that has died.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let fail = |source: io::Error| {
            if source.kind() == io::ErrorKind::InvalidInput {
                BindError::PathTooLong { path: path.to_owned() }
            } else {
                BindError::Io { path: path.to_owned(), source }
            }
        };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(fail)?;
        let server = Self { listener, path: path.to_owned() };
        // Until here the folder's own mode keeps others out.
        fs::set_permissions(path, Permissions::from_mode(FILE_MODE)).map_err(fail)?;
        Ok(server)
    }

    /// Serves until the node stops, draining included: a user may ask how far that is.
    pub async fn run(
        self,
        handler: Arc<dyn ControlHandler>,
        tasks: Tasks,
    ) -> Result<(), Infallible> {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let stopping = tasks.stopping().clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopping.cancelled() => return Ok(()),
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tracing::warn!("cannot accept a control connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                let busy = send_reply(stream, Reply::Error(Refusal::Busy));
                tasks.spawn_leaf(until(stopping.clone(), busy));
                continue;
            };
            let (handler, tasks_of_connection) = (Arc::clone(&handler), tasks.clone());
            let serve = async move {
                serve(stream, handler.as_ref(), &tasks_of_connection).await;
                drop(place);
            };
            tasks.spawn_leaf(until(stopping.clone(), serve));
        }
    }
}

/// Runs `task`, and drops it when the node stops.
async fn until(stopping: CancellationToken, task: impl Future<Output = ()>) {
    // `task` is dropped as a whole, never resumed, so it need not be cancel-safe.
    let _ = stopping.run_until_cancelled(task).await;
}

async fn serve(mut stream: UnixStream, handler: &dyn ControlHandler, tasks: &Tasks) {
    let request = match timeout(TRANSFER_TIME, read_request(&mut stream)).await {
        Ok(Ok(request)) => request,
        Ok(Err(refusal)) => return send_reply(stream, Reply::Error(refusal)).await,
        Err(_elapsed) => return send_reply(stream, Reply::Error(Refusal::TimedOut)).await,
    };
    let shutdown = request == Request::Shutdown;
    let reply = match timeout(ANSWER_TIME, handler.handle(request)).await {
        Ok(Ok(answer)) => Reply::Ok(answer),
        Ok(Err(refusal)) => Reply::Error(refusal),
        Err(_elapsed) => Reply::Error(Refusal::TimedOut),
    };
    let accepted = matches!(reply, Reply::Ok(_));
    send_reply(stream, reply).await;
    // After the reply, so that the user sees it even when there is nothing left to finish.
    if shutdown && accepted {
        tasks.request_shutdown();
    }
}

/// The part of an envelope that every version has.
#[derive(Deserialize)]
struct AnyEnvelope {
    version: u32,
}

/// Reads one line of at most [`REQUEST_BYTES`] and what it asks.
async fn read_request(stream: impl AsyncRead + Unpin) -> Result<Request, Refusal> {
    let malformed = |reason: &str| Refusal::Malformed { reason: reason.to_owned() };
    let mut stream = stream.take(u64::try_from(REQUEST_BYTES).unwrap_or(u64::MAX));
    let mut bytes = Vec::with_capacity(256);
    let line = loop {
        let before = bytes.len();
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(malformed("it has no end, or is too long")),
            Ok(_) => {}
        }
        let new = bytes.get(before..).unwrap_or_default();
        if let Some(end) = new.iter().position(|byte| *byte == b'\n') {
            break bytes.get(..before.saturating_add(end)).unwrap_or_default();
        }
    };
    // The version is read first: another version's request may not be readable at all.
    let AnyEnvelope { version } =
        serde_json::from_slice(line).map_err(|_| malformed("it is not a request in JSON"))?;
    if version != VERSION {
        return Err(Refusal::OtherVersion { node: VERSION });
    }
    serde_json::from_slice(line)
        .map(|envelope: Envelope| envelope.request)
        .map_err(|_| malformed("there is no such request"))
}

async fn send_reply(mut stream: UnixStream, reply: Reply) {
    let mut line = serde_json::to_vec(&reply).unwrap_or_default();
    line.push(b'\n');
    let sent = timeout(TRANSFER_TIME, async {
        stream.write_all(&line).await?;
        stream.shutdown().await
    });
    // A client that does not wait for its answer is its own affair.
    if !matches!(sent.await, Ok(Ok(()))) {
        tracing::debug!("a control client went away before its reply");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Answer, Client, ControlError};
    use crate::shutdown::Shutdown;
    use cocoon_protocol::identity::ReceiptHash;
    use cocoon_protocol::units::Millis;
    use futures::future::BoxFuture;
    use proptest::prelude::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream as Socket;

    #[derive(Debug)]
    struct Accepting;

    impl ControlHandler for Accepting {
        fn handle(&self, request: Request) -> BoxFuture<'_, Result<Answer, Refusal>> {
            Box::pin(async move {
                match request {
                    Request::ReceiptList { .. } => Ok(Answer::Receipts(vec![])),
                    Request::ReceiptShow { .. } => {
                        Err(Refusal::NotFound { what: "receipt".into() })
                    }
                    Request::Status
                    | Request::ChannelList
                    | Request::ReceiptProve { .. }
                    | Request::ReceiptExport { .. }
                    | Request::Accounts(_)
                    | Request::ChannelSettle
                    | Request::ChannelRelease { .. }
                    | Request::WalletShow
                    | Request::WalletFund { .. }
                    | Request::Money(_)
                    | Request::Shutdown => Ok(Answer::Accepted),
                }
            })
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Runs a server on its own thread around `test`, and stops it through the socket.
    fn with_server(test: impl FnOnce(&Path)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let runtime = runtime();
        let (shutdown, server) = runtime.block_on(async {
            (Shutdown::new(Millis::from_secs(5)).unwrap(), Server::bind(&path).unwrap())
        });
        let node = std::thread::spawn(move || {
            runtime.block_on(async move {
                let tasks = shutdown.tasks();
                let serving = server.run(Arc::new(Accepting), tasks.clone());
                tasks.spawn_service("control", serving);
                shutdown.wait_for_end().await
            })
        });
        test(&path);
        let stopped = Client::connect(&path).unwrap().ask(Request::Shutdown).unwrap();
        assert_eq!(stopped, Answer::Accepted);
        node.join().unwrap().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn requests_are_answered_and_refused() {
        with_server(|path| {
            let ask = |request| Client::connect(path).unwrap().ask(request);
            assert_eq!(ask(Request::Status).unwrap(), Answer::Accepted);
            assert_eq!(ask(Request::ReceiptList { limit: 5 }).unwrap(), Answer::Receipts(vec![]));
            let receipt = ReceiptHash::from_bytes([1; 32]);
            let error = ask(Request::ReceiptShow { receipt }).unwrap_err();
            assert!(matches!(error, ControlError::Refused(Refusal::NotFound { .. })), "{error:?}");
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, FILE_MODE);
        });
    }

    #[test]
    fn a_socket_that_a_dead_node_left_is_told_from_a_running_node_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        assert!(matches!(Client::connect(&path), Err(ControlError::NotRunning)));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(matches!(Client::connect(&path), Err(ControlError::NotRunning)));
        runtime().block_on(async { drop(Server::bind(&path).unwrap()) });
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_is_too_long_is_named_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x".repeat(200)).join("control.sock");
        let error = runtime().block_on(async { Server::bind(&path).unwrap_err() });
        assert!(matches!(error, BindError::PathTooLong { .. }), "{error:?}");
        assert!(matches!(Client::connect(&path), Err(ControlError::NotRunning)));
    }

    fn send(path: &Path, bytes: &[u8]) -> Vec<u8> {
        let mut stream = Socket::connect(path).unwrap();
        // The server may close before it has taken everything.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        reply
    }

    #[test]
    fn hostile_clients_get_a_refusal_or_nothing_and_the_next_one_is_served() {
        with_server(|path| {
            let long = [b"{\"version\":1,".as_slice(), &[b' '; 1 << 20]].concat();
            let deep = "[".repeat(4_000) + "\n";
            let cases: [&[u8]; 7] =
                [b"", b"\n", b"{}\n", b"{\"version\":1}\n", &[0xff; 64], deep.as_bytes(), &long];
            for case in cases {
                let reply = send(path, case);
                assert!(reply.is_empty() || reply.starts_with(b"{\"error\":"), "{reply:?}");
            }
            let other = send(path, b"{\"version\":9,\"request\":{\"unknown\":{}}}\n");
            assert_eq!(other, b"{\"error\":{\"kind\":\"other_version\",\"node\":1}}\n");
            // The listener accepts in order, so these hold every place before the next one comes.
            let idle: Vec<_> = (0..CONNECTIONS).map(|_| Socket::connect(path).unwrap()).collect();
            let refused = Client::connect(path).unwrap().ask(Request::Status).unwrap_err();
            assert!(matches!(refused, ControlError::Refused(Refusal::Busy)), "{refused:?}");
            drop(idle);
            // Their places are free again as soon as the server has seen them go.
            let status = b"{\"version\":1,\"request\":\"status\"}\n";
            while send(path, status) != b"{\"ok\":\"accepted\"}\n" {}
        });
    }

    fn read(bytes: &[u8]) -> Result<Request, Refusal> {
        futures::executor::block_on(read_request(bytes))
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_request_by_accident(
            bytes in prop::collection::vec(any::<u8>(), 0..6_000),
        ) {
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn a_request_is_read_whatever_follows_its_line(limit: u32, rest: Vec<u8>) {
            let request = Request::ReceiptList { limit };
            let envelope = Envelope { version: VERSION, request: request.clone() };
            let mut bytes = serde_json::to_vec(&envelope).unwrap();
            bytes.push(b'\n');
            bytes.extend(rest);
            prop_assert_eq!(read(&bytes), Ok(request));
        }

        #[test]
        fn a_changed_byte_never_panics(at in 0usize..60, to: u8) {
            let envelope = Envelope { version: VERSION, request: Request::WalletShow };
            let mut bytes = serde_json::to_vec(&envelope).unwrap();
            bytes.push(b'\n');
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            let _ = read(&bytes);
        }
    }
}
