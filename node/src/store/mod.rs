//! What survives a crash: one file, a table for each kind of record, one durable commit at a time.
//!
//! Owns: the redb file, its schema version, and the thread that writes it.
//! Must not: know what a record means; whoever writes one reads it.
//! Invariant: a batch is in the file whole or not at all, and when [`Durable`] resolves it stays
//! there whatever happens to the process or the machine.
//!
//! Reading never waits for writing and sees durable batches only. Writing goes through one thread
//! (redb is synchronous), which puts everything that is waiting into one transaction: under load
//! one fsync serves many batches, and an idle store commits at once.

mod error;
mod schema;
mod table;
mod writer;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase as _};
use redb::{ReadOnlyTable, ReadableTableMetadata as _, StorageBackend};
use tokio::sync::{mpsc, oneshot};

use crate::data_folder::FILE_MODE;

pub use error::{CommitError, OpenError, ReadError};
pub use table::Table;

/// Largest key. Ours are a hash or a channel of three parts, under 80 bytes.
pub const KEY_BYTES: usize = 128;
/// Largest value. A receipt has 0.5 kB and a channel's state a few; a larger one is a bug.
pub const VALUE_BYTES: usize = 65_536;
/// Most records in one batch. A protocol output has a handful; a larger one is a bug.
pub const BATCH_RECORDS: usize = 1_024;
/// Batches that may wait for the writer. When full, [`Store::submit`] waits: the driver then slows
/// down to the speed of the disk, which is the only honest thing left to do.
const QUEUE_BATCHES: usize = 1_024;
/// Memory for pages. A node's working set is its open channels, far below; redb's own default is
/// a gigabyte, which a provider's model needs more.
const CACHE_BYTES: usize = 16 << 20;

/// One change: the value of a key, or its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which kind.
    pub table: Table,
    /// Its key; at most [`KEY_BYTES`].
    pub key: Vec<u8>,
    /// Its bytes, at most [`VALUE_BYTES`]; `None` removes the key.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// Sets a key's value.
    pub const fn put(table: Table, key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { table, key, value: Some(value) }
    }

    /// Removes a key.
    pub const fn remove(table: Table, key: Vec<u8>) -> Self {
        Self { table, key, value: None }
    }
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// The store, open. Clones share it; the last one to be dropped waits for the writer to finish.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    database: Arc<Database>,
    /// `None` only while it is dropped.
    queue: Option<mpsc::Sender<writer::Batch>>,
    writer: Option<JoinHandle<()>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Closing the queue ends the writer after what is in it. A panic in the writer was
        // reported by the panic hook, and every batch that it held was answered with an error.
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Store {
    /// Opens the file, or makes it when it is not there. After a crash this repairs the file first.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        make_database(path)?;
        Self::start(builder().create(path))
    }

    /// A store that is gone when it is dropped, for tests.
    pub fn in_memory() -> Result<Self, OpenError> {
        Self::on(InMemoryBackend::new())
    }

    /// A store on any storage, for tests that pull the plug.
    pub(crate) fn on(backend: impl StorageBackend) -> Result<Self, OpenError> {
        Self::start(builder().create_with_backend(backend))
    }

    fn start(database: Result<Database, DatabaseError>) -> Result<Self, OpenError> {
        let database = Arc::new(database.map_err(OpenError::from_redb)?);
        schema::prepare(&database)?;
        let (queue, batches) = mpsc::channel(QUEUE_BATCHES);
        let for_writer = Arc::clone(&database);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer::run(&for_writer, batches))
            .map_err(OpenError::NoThread)?;
        let shared = Shared { database, queue: Some(queue), writer: Some(writer) };
        Ok(Self(Arc::new(shared)))
    }

    /// Hands a batch to the writer and returns as soon as it has a place in the queue. Batches
    /// become durable in the order in which they were submitted.
    pub async fn submit(&self, batch: Vec<Record>) -> Result<Durable, CommitError> {
        check(&batch)?;
        let (done, durable) = oneshot::channel();
        let queue = self.0.queue.as_ref().ok_or(CommitError::WriterGone)?;
        let sent = queue.send(writer::Batch { records: batch, done }).await;
        sent.map_err(|_| CommitError::WriterGone)?;
        Ok(Durable(durable))
    }

    /// Writes a batch and returns when it is durable.
    pub async fn commit(&self, batch: Vec<Record>) -> Result<(), CommitError> {
        self.submit(batch).await?.await
    }

    /// As [`Store::commit`], for threads outside the runtime. Panics inside it.
    pub fn commit_blocking(&self, batch: Vec<Record>) -> Result<(), CommitError> {
        check(&batch)?;
        let (done, durable) = oneshot::channel();
        let queue = self.0.queue.as_ref().ok_or(CommitError::WriterGone)?;
        let sent = queue.blocking_send(writer::Batch { records: batch, done });
        sent.map_err(|_| CommitError::WriterGone)?;
        durable.blocking_recv().unwrap_or(Err(CommitError::WriterGone))
    }

    /// The durable value of a key.
    pub fn read(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let table = self.table(table)?;
        let value = table.get(key).map_err(ReadError::from_redb)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    /// Durable entries in the order of their keys, at most `limit`, from the first key after
    /// `after` on; `None` starts at the beginning.
    pub fn scan(
        &self,
        table: Table,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let table = self.table(table)?;
        let from = after.map_or(Unbounded, Excluded);
        let range = table.range::<&[u8]>((from, Unbounded)).map_err(ReadError::from_redb)?;
        range
            .take(limit)
            .map(|entry| {
                let (key, value) = entry.map_err(ReadError::from_redb)?;
                Ok((key.value().to_vec(), value.value().to_vec()))
            })
            .collect()
    }

    /// How many durable entries a table has.
    pub fn count(&self, table: Table) -> Result<u64, ReadError> {
        self.table(table)?.len().map_err(ReadError::from_redb)
    }

    fn table(
        &self,
        table: Table,
    ) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, ReadError> {
        let snapshot = self.0.database.begin_read().map_err(ReadError::from_redb)?;
        snapshot.open_table(table.definition()).map_err(ReadError::from_redb)
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes an empty database at `path`, readable by its owner alone, unless there is one. A crash
/// while redb lays out a new file leaves something that it does not open again, so the file gets
/// its name when it is whole.
pub(crate) fn make_database(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::File { path: path.to_owned(), source };
    if path.try_exists().map_err(failed)? {
        return Ok(());
    }
    let part = path.with_extension("part");
    match std::fs::remove_file(&part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    // Made by us so that the mode is ours; redb takes an empty file for a new one.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&part)
        .map_err(failed)?;
    drop(builder().create(&part).map_err(OpenError::from_redb)?);
    file.sync_all().map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)?;
    match path.parent() {
        Some(folder) => File::open(folder).and_then(|it| it.sync_all()).map_err(failed),
        None => Ok(()),
    }
}

/// Refuses what could only be a bug of ours, before it reaches the file.
fn check(batch: &[Record]) -> Result<(), CommitError> {
    if batch.len() > BATCH_RECORDS {
        return Err(CommitError::TooManyRecords { records: batch.len() });
    }
    let too_large = |record: &&Record| {
        record.key.len() > KEY_BYTES
            || record.value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES)
    };
    match batch.iter().find(too_large) {
        Some(record) => Err(CommitError::RecordTooLarge { table: record.table }),
        None => Ok(()),
    }
}

/// Resolves when a submitted batch is durable, or cannot become so. Dropping it does not take the
/// batch back.
#[derive(Debug)]
#[must_use = "what follows from a batch may happen only when it is durable"]
pub struct Durable(oneshot::Receiver<Result<(), CommitError>>);

impl Future for Durable {
    type Output = Result<(), CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(CommitError::WriterGone)))
    }
}

#[cfg(test)]
mod tests;
