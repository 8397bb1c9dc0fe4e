//! A node from its settings to its end: the one place where the parts are put together.
//!
//! Owns: the order in which parts start and stop. Must not: decide anything else.
//! Start: signals, data folder and its lock, key, store, then the tasks. Stop: see `shutdown.rs`.

use std::sync::Arc;

use cocoon_protocol::identity::NodeKey;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::control;
use crate::data_folder::{DataFolder, FolderError, InstanceLock, LockError};
use crate::keystore::{self, AdoptError, Keystore, KeystoreError, Unlock};
use crate::operator::Operator;
use crate::shutdown::{Fault, Shutdown, SignalError, Tasks};
use crate::store::{self, Store};

/// Why a node did not start, or ended other than by a request.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// SIGINT and SIGTERM cannot be heard.
    #[error("the node could not start")]
    Signals(#[source] SignalError),
    /// The data folder cannot be used.
    #[error("the node could not start")]
    Folder(#[source] FolderError),
    /// Another node runs on the data folder.
    #[error("the node could not start")]
    Lock(#[source] LockError),
    /// The node's secrets cannot be opened or made.
    #[error("the node could not start")]
    Keystore(#[source] KeystoreError),
    /// Secrets of an earlier version cannot be taken over.
    #[error("the node could not start")]
    Adopt(#[source] AdoptError),
    /// The store cannot be opened.
    #[error("the node could not start")]
    Store(#[source] store::OpenError),
    /// The control socket cannot be made.
    #[error("the node could not start")]
    Control(#[source] control::BindError),
    /// A part could not be started.
    #[error("the node could not start")]
    Start(#[source] crate::start::StartError),
    /// A part on which the node depends failed while it ran.
    #[error("the node stopped because of a fault")]
    Fault(#[source] Fault),
}

/// What every node has before it talks to anyone.
#[derive(Debug)]
pub struct Foundation {
    /// Where everything is.
    pub folder: DataFolder,
    /// Proof that no other process uses the folder; held to the end.
    pub lock: InstanceLock,
    /// The node's secrets.
    pub keystore: Keystore,
    /// The node's identity.
    pub key: NodeKey,
    /// What survives a crash.
    pub store: Store,
}

impl Foundation {
    /// Opens, and where needed makes, what is in the data folder.
    pub fn open(config: &Config) -> Result<Self, RunError> {
        let folder = DataFolder::open(&config.data_dir).map_err(RunError::Folder)?;
        let lock = folder.lock().map_err(RunError::Lock)?;
        let keystore = Keystore::open(&folder, &lock, &Unlock::from_config(config));
        let keystore = keystore.map_err(RunError::Keystore)?;
        let store = Store::open(&folder.store()).map_err(RunError::Store)?;
        keystore::adopt(&keystore, &folder, &store).map_err(RunError::Adopt)?;
        let key = keystore.node_key().map_err(RunError::Keystore)?;
        Ok(Self { folder, lock, keystore, key, store })
    }
}

/// Runs a node until it is asked to end or cannot go on. Within a tokio runtime.
pub async fn run(config: Config) -> Result<(), RunError> {
    let shutdown = Shutdown::new(config.shutdown_grace).map_err(RunError::Signals)?;
    let foundation = Foundation::open(&config)?;
    Box::pin(start(&config, &foundation, &shutdown.tasks())).await?;
    tracing::info!(
        node = %foundation.key.id(),
        network = ?config.network,
        provide = config.provide,
        consume = config.consume,
        data_dir = %foundation.folder.path().display(),
        "the node runs"
    );
    let ended = shutdown.wait_for_end().await.map_err(RunError::Fault);
    // The store's last clone waits for its writer, the lock goes last of all.
    let Foundation { store, lock, .. } = foundation;
    drop(store);
    drop(lock);
    tracing::info!("the node has ended");
    ended
}

/// Starts every part of the node; the control socket last, when there is something to ask.
async fn start(config: &Config, foundation: &Foundation, tasks: &Tasks) -> Result<(), RunError> {
    let running = Box::pin(crate::start::start(config, foundation, tasks)).await;
    let operator = Operator {
        config: config.clone(),
        node: foundation.key.id(),
        started: SystemClock.now(),
        tasks: tasks.clone(),
        store: foundation.store.clone(),
        running: running.map_err(RunError::Start)?,
    };
    let socket =
        control::Server::bind(&foundation.folder.control_socket()).map_err(RunError::Control)?;
    tasks.spawn_service("control socket", socket.run(Arc::new(operator), tasks.clone()));
    Ok(())
}
