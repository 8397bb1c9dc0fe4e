//! Listening: accepts connections, bounds them, and ends them in order.
//!
//! Owns: the listener, one task per connection, and the shutdown.
//! Must not: know what is served.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use cocoon_protocol::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::access::{ApiKey, BindError, check_bind};
use crate::connection::{self, Deadlines};
use crate::port::Jobs;
use crate::router::{Gateway, router};

/// Connections at a time: as many as the node runs jobs, and a quarter more for those that ask
/// about models or health. Further ones wait in the kernel's backlog until one ends.
const CONNECTIONS: usize = limits::JOBS_PER_NODE + limits::JOBS_PER_NODE / 4;
/// Pause after a failed accept, which is nearly always for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the gateway listens. The defaults suit a person's own machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Clients must present one of these. Empty: everyone who can connect may call, which is
    /// allowed on loopback only.
    pub keys: Vec<ApiKey>,
    /// Names besides `localhost` and addresses that clients may call this node by while there is
    /// no key, for example `host.docker.internal`.
    pub allowed_hosts: Vec<String>,
    /// Time for a request's head, and for an idle connection to send the next one. Default: 30 s.
    pub head_allowance: Duration,
    /// Time for a request's body. Default: 30 s; 2 MiB then need 70 kB/s.
    pub body_allowance: Duration,
    /// Time for a client to take any of the bytes that wait for it, before its job is cancelled.
    /// Default: 5 minutes, for a person who stopped a client in a debugger.
    pub write_allowance: Duration,
    /// Time for running answers to end at a shutdown, before they are cut. Default: 20 s.
    pub shutdown_allowance: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            allowed_hosts: Vec::new(),
            head_allowance: Duration::from_secs(30),
            body_allowance: Duration::from_secs(30),
            write_allowance: Duration::from_secs(300),
            shutdown_allowance: Duration::from_secs(20),
        }
    }
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can be reached by strangers and there is no key.
    #[error(transparent)]
    Exposed(BindError),
    /// The listener does not know its own address.
    #[error("the listening socket is broken; start the node again")]
    Listener(#[source] io::Error),
}

/// Serves the interface on `listener` until `shutdown`, then lets running answers end within the
/// allowance. Every task that it starts has ended when it returns; dropping it ends them at once.
pub async fn serve(
    listener: TcpListener,
    jobs: Arc<dyn Jobs>,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Listener)?;
    check_bind(address, !options.keys.is_empty()).map_err(ServeError::Exposed)?;
    let deadlines = Deadlines { head: options.head_allowance, write: options.write_allowance };
    let router = router(Gateway {
        jobs,
        keys: options.keys.into(),
        allowed_hosts: options.allowed_hosts.into(),
        body_allowance: options.body_allowance,
    });
    tracing::info!(%address, "the gateway listens");

    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = accept(&listener, &places) => match accepted {
                Ok((stream, place)) => {
                    let (router, shutdown) = (router.clone(), shutdown.clone());
                    connections.spawn(run(stream, place, router, deadlines, shutdown));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drain = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(options.shutdown_allowance, drain).await.is_err() {
        tracing::warn!(cut = connections.len(), "answers were cut by the shutdown");
        connections.shutdown().await;
    }
    tracing::info!("the gateway has stopped");
    Ok(())
}

/// Waits for a place, then for a connection to fill it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Chunks of an answer are small and must not wait for one another.
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

async fn run(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    router: Router,
    deadlines: Deadlines,
    shutdown: CancellationToken,
) {
    if let Err(error) = connection::serve(stream, router, deadlines, shutdown).await {
        // Clients come and go; only whoever looks for a fault wants to read of it.
        tracing::debug!(%error, "a connection ended early");
    }
    drop(place);
}

/// A handler that panicked has ended its own connection only, but someone must know.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection's task panicked");
    }
}
