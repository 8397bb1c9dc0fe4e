//! The only caller of the protocol's [`Node`]: inputs in, records made durable, effects carried out.
//!
//! Owns: the inbox, the order "persist, then speak", and the tables that lead from a job or peer to
//! the task that serves it.
//! Must not: wait for a peer, an engine or the ledger. Whatever takes time is a task of its own that
//! answers through the inbox. Token text does not pass here while it streams; what has come of an answer
//! does, once, when its provider is lost.

mod effects;
pub(crate) mod event;
pub(crate) mod jobs;
pub(crate) mod ledger_desk;
pub(crate) mod pump;
mod serve;
pub(crate) mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use cocoon_engine::Engine;
use cocoon_protocol::identity::{JobId, NodeId};
use cocoon_protocol::input::Proved;
use cocoon_protocol::job::JobSpec;
use cocoon_protocol::record::Record as ProtocolRecord;
use cocoon_protocol::{Input, Node, Output};
use tokio::sync::mpsc;

use crate::budget::Budget;
use crate::clock::Clock;
use crate::net::session::{Bodies, PARTING, Role, SessionHandle};
use crate::shutdown::Tasks;
use crate::store::{CommitError, Record, Store, Table};
use event::{DriverHandle, Event};
use ledger_desk::LedgerDesk;
use pump::{Orders, Pump};
use serve::Steering;
use view::View;

/// Events handled before their records are committed together: one fsync for a burst of vouchers.
const BATCH: usize = 64;

/// What the driver needs of the world.
#[derive(Debug)]
pub(crate) struct World {
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// What must survive.
    pub(crate) store: Store,
    /// The engine, on a provider.
    pub(crate) engine: Option<Arc<dyn Engine>>,
    /// The ledger's queue.
    pub(crate) ledger: LedgerDesk,
    /// Peers, sessions, offers.
    pub(crate) sessions: crate::net::sessions::Sessions,
    /// Requests whose text waits.
    pub(crate) bodies: Bodies,
    /// What may be spent, which learns here what was.
    pub(crate) budget: Arc<Budget>,
    /// Starts tasks.
    pub(crate) tasks: Tasks,
}

/// Why the driver ended in a way that it must not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriverError {
    /// Without a store nothing may be promised or served.
    #[error("the store does not take records any more; check the disk, then restart")]
    Store(#[source] CommitError),
}

/// A consumer's running job, as far as the shell has to know.
struct Consuming {
    spec: JobSpec,
    salt: [u8; 32],
    /// What has come of its answer from providers that were lost.
    answer: String,
    orders: Orders,
}

/// The actor.
pub(crate) struct Driver {
    node: Node,
    world: World,
    handle: DriverHandle,
    dialled: BTreeMap<NodeId, SessionHandle>,
    accepted: BTreeMap<NodeId, SessionHandle>,
    consuming: BTreeMap<JobId, Consuming>,
    serving: BTreeMap<(NodeId, JobId), Steering>,
}

impl Driver {
    /// A driver for a node in its world.
    pub(crate) const fn new(node: Node, world: World, handle: DriverHandle) -> Self {
        Self {
            node,
            world,
            handle,
            dialled: BTreeMap::new(),
            accepted: BTreeMap::new(),
            consuming: BTreeMap::new(),
            serving: BTreeMap::new(),
        }
    }

    /// Runs until the node is drained, or at once when it must stop.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Event>) -> Result<(), DriverError> {
        let draining = self.world.tasks.draining().clone();
        let stopping = self.world.tasks.stopping().clone();
        let now = self.world.clock.now();
        let first = self.node.handle_timeout(now);
        let mut wake_at = self.commit(vec![first]).await?;
        let mut drained = false;
        loop {
            let now = self.world.clock.now();
            let sleep = wake_at
                .map_or(std::time::Duration::from_secs(3600), |at| at.since(now).to_duration());
            let mut outputs = Vec::new();
            // Every arm only waits, so dropping the others loses nothing.
            tokio::select! {
                biased;
                () = stopping.cancelled() => return Ok(()),
                () = draining.cancelled(), if !drained => {
                    drained = true;
                    outputs.push(self.node.handle(Input::Drain, now));
                }
                event = inbox.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    self.take(event, &mut outputs);
                    while outputs.len() < BATCH && let Ok(event) = inbox.try_recv() {
                        self.take(event, &mut outputs);
                    }
                }
                () = tokio::time::sleep(sleep) => {
                    outputs.push(self.node.handle_timeout(self.world.clock.now()));
                }
            }
            if !outputs.is_empty() {
                wake_at = self.commit(outputs).await?;
            }
            if self.node.is_drained() {
                self.part(&mut inbox).await;
                return Ok(());
            }
        }
    }

    /// Ends every session once it has written what waits: the network ends right after the driver,
    /// and a last voucher is owed.
    async fn part(&mut self, inbox: &mut mpsc::Receiver<Event>) {
        for session in self.dialled.values().chain(self.accepted.values()) {
            session.cancel.cancel();
        }
        let parted = async {
            while !(self.dialled.is_empty() && self.accepted.is_empty()) {
                let Some(event) = inbox.recv().await else { return };
                if let Event::SessionEnded { peer, accepted, serial } = event {
                    let table = if accepted { &mut self.accepted } else { &mut self.dialled };
                    if table.get(&peer).is_some_and(|session| session.serial == serial) {
                        table.remove(&peer);
                    }
                }
            }
        };
        if tokio::time::timeout(PARTING, parted).await.is_err() {
            tracing::info!("some peers did not take the last messages of their sessions");
        }
    }

    /// Hands an event to the protocol, after the shell's own part of it.
    fn take(&mut self, event: Event, outputs: &mut Vec<Output>) {
        let input = match event {
            Event::Input(input) => input,
            Event::Inspect(answer) => {
                // Whoever asked may have left.
                let _left = answer.send(View::of(&self.node));
                return;
            }
            Event::Submit(submission) => {
                let (job, draw) = (submission.job, submission.draw);
                let (demand, salt) = (submission.demand.clone(), submission.salt);
                let (pump, spec, orders) = Pump::new(*submission, self.handle.clone());
                self.world.tasks.spawn_leaf(pump.run());
                self.consuming.insert(job, Consuming { spec, salt, answer: String::new(), orders });
                Input::Submit { job, demand, draw }
            }
            Event::Halted { job, completion, mut bytes, answer } => {
                if let Some(consuming) = self.consuming.get_mut(&job) {
                    let prompt = consuming.spec.prompt.continued(&answer);
                    // What breaks a bound would be refused by everybody.
                    if (JobSpec { prompt, ..consuming.spec.clone() }).check().is_err() {
                        bytes = usize::MAX;
                    }
                    consuming.answer = answer;
                }
                Input::Halted { job, completion, bytes }
            }
            Event::SessionOpened { session, proved } => self.session_opened(session, proved),
            Event::SessionEnded { peer, accepted, serial } => {
                let table = if accepted { &mut self.accepted } else { &mut self.dialled };
                // An older session of the same peer, which a newer one has replaced, ends silently.
                if table.get(&peer).is_none_or(|session| session.serial != serial) {
                    return;
                }
                table.remove(&peer);
                Input::SessionClosed { peer, accepted }
            }
        };
        outputs.push(self.node.handle(input, self.world.clock.now()));
    }

    fn session_opened(&mut self, session: SessionHandle, proved: Proved) -> Input {
        let peer = session.peer;
        let accepted = session.is_accepted();
        let table = if accepted { &mut self.accepted } else { &mut self.dialled };
        if let Some(older) = table.insert(peer, session) {
            older.cancel.cancel();
        }
        if accepted {
            Input::SessionAccepted { peer, proved }
        } else {
            Input::SessionReady { peer, proved }
        }
    }

    /// Makes the outputs' records durable, all at once, then carries out their effects in order.
    async fn commit(
        &mut self,
        outputs: Vec<Output>,
    ) -> Result<Option<cocoon_protocol::units::Timestamp>, DriverError> {
        let records: Vec<_> = outputs.iter().flat_map(|out| &out.persist).map(to_store).collect();
        for batch in records.chunks(crate::store::BATCH_RECORDS) {
            let batch = batch.to_vec();
            self.world.store.commit(batch).await.map_err(DriverError::Store)?;
        }
        let mut wake_at = None;
        for output in outputs {
            for record in &output.persist {
                if let ProtocolRecord::Posting(posting) = record {
                    self.world.budget.note(posting);
                }
            }
            wake_at = output.wake_at;
            for effect in output.effects {
                self.carry_out(effect);
            }
        }
        Ok(wake_at)
    }
}

fn to_store(record: &ProtocolRecord) -> Record {
    let table = match record {
        ProtocolRecord::Payer(_) => Table::Payer,
        ProtocolRecord::Payee(_) => Table::Payee,
        ProtocolRecord::Receipt(_) => Table::Receipt,
        ProtocolRecord::Interrupted(_) => Table::Interrupted,
        ProtocolRecord::Logged(_) => Table::Log,
        ProtocolRecord::Posting(_) => Table::Posting,
    };
    Record::put(table, record.key(), record.encode())
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The vault key that a session's vouchers verify against, once the ledger has shown it.
fn trust(session: &SessionHandle, key: cocoon_protocol::channel::VaultPublicKey) {
    if let Role::Provider { vault, .. } = &session.role {
        *vault.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(key);
    }
}
