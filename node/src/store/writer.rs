//! The thread that writes the store: batches in, one transaction for all that wait, answers out.
//!
//! Owns: every write transaction after the store is open. Must not: reorder or split batches.

use std::sync::Arc;

use redb::{Database, Durability, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::Record;
use super::error::CommitError;

/// Batches that share one transaction at most. Bounds the time that the first of them waits for
/// the others to be copied into the tree; far more than arrive within one fsync.
const GROUP_BATCHES: usize = 256;

/// Records that become durable together, and whom to tell.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) done: oneshot::Sender<Result<(), CommitError>>,
}

/// Writes batches until the queue is closed and empty.
pub(super) fn run(database: &Database, mut batches: mpsc::Receiver<Batch>) {
    let mut failure: Option<Arc<redb::Error>> = None;
    let mut group = Vec::with_capacity(GROUP_BATCHES);
    while let Some(first) = batches.blocking_recv() {
        group.push(first);
        while group.len() < GROUP_BATCHES {
            let Ok(next) = batches.try_recv() else { break };
            group.push(next);
        }
        // A failed store stays failed: see `CommitError::Failed`.
        if failure.is_none() {
            failure = write(database, &group).err().map(Arc::new);
            if let Some(error) = &failure {
                let error: &dyn std::error::Error = error.as_ref();
                tracing::error!(error, "the store could not be written");
            }
        }
        for batch in group.drain(..) {
            let answer = match &failure {
                None => Ok(()),
                Some(error) => Err(CommitError::Failed(Arc::clone(error))),
            };
            // Whoever submitted may have stopped waiting; the batch is written all the same.
            let _ = batch.done.send(answer);
        }
    }
}

fn write(database: &Database, group: &[Batch]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    for record in group.iter().flat_map(|batch| &batch.records) {
        apply(&transaction, record)?;
    }
    transaction.commit()?;
    Ok(())
}

fn apply(transaction: &WriteTransaction, record: &Record) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(record.table.definition())?;
    match &record.value {
        Some(value) => drop(table.insert(record.key.as_slice(), value.as_slice())?),
        None => drop(table.remove(record.key.as_slice())?),
    }
    Ok(())
}
