//! The thread that writes tables, and the hand that feeds it.
//!
//! Owns: the files of the tables from creation to their final name, thinning, content hashes.
//! Must not: decide what a row says. When the disk fails, the run goes on and `finish` says so.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use ::parquet::errors::ParquetError;
use ::parquet::file::writer::SerializedFileWriter;
use serde::{Deserialize, Serialize};

use super::batch::{Batch, Cell};
use super::{csv, parquet};
use crate::schema::{TABLES, Table};

/// Rows of a batch, and so of a Parquet row group. 16 columns of 8 bytes: 4 MiB.
const BATCH_ROWS: usize = 32_768;
/// Batches on their way. A disk that is slower than the run makes the run wait.
const BATCHES_AHEAD: usize = 4;

/// How tables are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Parquet with Snappy.
    #[default]
    Parquet,
    /// Comma-separated values.
    Csv,
}

impl Format {
    const fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }
}

/// Where tables go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere: only their hashes are taken. For checks.
    Nowhere,
    /// Into this folder, which is made if it is not there.
    Folder(PathBuf, Format),
}

/// Why tables are not whole.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A file could not be made or written.
    #[error("{} could not be written: is the folder writable and the disk not full?", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A Parquet file could not be written.
    #[error("{} could not be written: is the folder writable and the disk not full?", path.display())]
    Parquet {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: ParquetError,
    },
    /// The thread that writes ended before its time.
    #[error("the thread that writes tables ended before its time; this is a bug")]
    Lost,
}

/// What a table came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSummary {
    /// Its name.
    pub name: String,
    /// Rows in it.
    pub rows: u64,
    /// Rows that it stands for, thinned ones included.
    pub stands_for: u64,
    /// BLAKE3 over its content, in hexadecimal; the same in every format.
    pub hash: String,
}

/// Every table of a run, being filled.
#[derive(Debug)]
pub(crate) struct Tables {
    open: Vec<Open>,
    /// `None` once the thread is told to finish.
    batches: Option<SyncSender<Batch>>,
    thread: Option<JoinHandle<Result<Vec<TableSummary>, TableError>>>,
    rows_before_thinning: u64,
}

#[derive(Debug)]
struct Open {
    batch: Batch,
    offered: u64,
    kept: u64,
    weight: u64,
}

impl Tables {
    pub(crate) fn create(
        destination: Destination,
        rows_before_thinning: u64,
    ) -> Result<Self, TableError> {
        let sinks = TABLES
            .iter()
            .map(|it| Sink::create(it, &destination))
            .collect::<Result<Vec<_>, _>>()?;
        let (batches, inbox) = sync_channel(BATCHES_AHEAD);
        let thread = std::thread::Builder::new()
            .name("tables".to_owned())
            .spawn(move || write_all(sinks, &inbox))
            .map_err(|source| TableError::File { path: PathBuf::from("a thread"), source })?;
        let open = |table: &&'static Table| Open {
            batch: Batch::new(table),
            offered: 0,
            kept: 0,
            weight: 1,
        };
        Ok(Self {
            open: TABLES.iter().map(open).collect(),
            batches: Some(batches),
            thread: Some(thread),
            rows_before_thinning: rows_before_thinning.max(1),
        })
    }

    /// Adds a row to a table that is never thinned.
    pub(crate) fn push(&mut self, table: &'static Table, row: &[Cell<'_>]) {
        let batches = self.batches.as_ref();
        let Some(open) = self.open.iter_mut().find(|it| it.batch.table.name == table.name) else {
            return;
        };
        open.offered += 1;
        open.keep(row, batches);
    }

    /// Adds a row to a table that is thinned. `number` counts the table's subjects from 0; `row` is
    /// made, from its weight, only if it is kept.
    pub(crate) fn push_thinned<'a, const N: usize>(
        &mut self,
        table: &'static Table,
        number: u64,
        row: impl FnOnce(u64) -> [Cell<'a>; N],
    ) {
        let (limit, batches) = (self.rows_before_thinning, self.batches.as_ref());
        let Some(open) = self.open.iter_mut().find(|it| it.batch.table.name == table.name) else {
            return;
        };
        open.offered += 1;
        if number.is_multiple_of(open.weight) {
            open.keep(&row(open.weight), batches);
            if open.kept.is_multiple_of(limit) {
                open.weight = open.weight.saturating_mul(10);
            }
        }
    }

    /// Writes what is left and gives every file its name.
    pub(crate) fn finish(mut self) -> Result<Vec<TableSummary>, TableError> {
        let Some(batches) = self.batches.take() else { return Err(TableError::Lost) };
        let mut offered = Vec::new();
        for open in self.open.drain(..) {
            offered.push(open.offered);
            if open.batch.rows > 0 {
                // A thread that failed has its reason ready below.
                let _ = batches.send(open.batch);
            }
        }
        drop(batches);
        let thread = self.thread.take().ok_or(TableError::Lost)?;
        let mut summaries = thread.join().map_err(|_panic| TableError::Lost)??;
        for (summary, offered) in summaries.iter_mut().zip(offered) {
            summary.stands_for = offered;
        }
        Ok(summaries)
    }
}

impl Open {
    fn keep(&mut self, row: &[Cell<'_>], batches: Option<&SyncSender<Batch>>) {
        self.batch.push(row);
        self.kept += 1;
        if self.batch.rows >= BATCH_ROWS {
            let table = self.batch.table;
            let full = std::mem::replace(&mut self.batch, Batch::new(table));
            if let Some(batches) = batches {
                // A thread that failed has its reason ready for `finish`.
                let _ = batches.send(full);
            }
        }
    }
}

/// Where the rows of one table go, and their hash so far.
struct Sink {
    table: &'static Table,
    rows: u64,
    hasher: blake3::Hasher,
    out: Out,
}

enum Out {
    Nowhere,
    Csv(BufWriter<File>, PathBuf),
    Parquet(Box<SerializedFileWriter<File>>, PathBuf),
}

/// The name of a table that is not whole yet.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

impl Sink {
    fn create(table: &'static Table, destination: &Destination) -> Result<Self, TableError> {
        let out = match destination {
            Destination::Nowhere => Out::Nowhere,
            Destination::Folder(folder, format) => {
                let path = folder.join(format!("{}.{}", table.name, format.extension()));
                let failed = |source| TableError::File { path: path.clone(), source };
                std::fs::create_dir_all(folder).map_err(failed)?;
                let file = File::create(partial(&path)).map_err(failed)?;
                match format {
                    Format::Csv => {
                        let mut out = BufWriter::new(file);
                        csv::head(&mut out, table).map_err(failed)?;
                        Out::Csv(out, path)
                    }
                    Format::Parquet => {
                        let out = parquet::open(file, table)
                            .map_err(|source| TableError::Parquet { path: path.clone(), source })?;
                        Out::Parquet(Box::new(out), path)
                    }
                }
            }
        };
        let hasher = blake3::Hasher::new_derive_key("cocoon simnet table v1");
        Ok(Self { table, rows: 0, hasher, out })
    }

    fn take(&mut self, batch: &Batch) -> Result<(), TableError> {
        self.rows += u64::try_from(batch.rows).unwrap_or(u64::MAX);
        batch.hash_into(&mut self.hasher);
        match &mut self.out {
            Out::Nowhere => Ok(()),
            Out::Csv(out, path) => csv::rows(out, batch)
                .map_err(|source| TableError::File { path: path.clone(), source }),
            Out::Parquet(out, path) => parquet::rows(out, batch)
                .map_err(|source| TableError::Parquet { path: path.clone(), source }),
        }
    }

    fn finish(self) -> Result<TableSummary, TableError> {
        match self.out {
            Out::Nowhere => {}
            Out::Csv(mut out, path) => {
                let whole = out.flush().and_then(|()| std::fs::rename(partial(&path), &path));
                whole.map_err(|source| TableError::File { path, source })?;
            }
            Out::Parquet(out, path) => {
                if let Err(source) = out.close() {
                    return Err(TableError::Parquet { path, source });
                }
                std::fs::rename(partial(&path), &path)
                    .map_err(|source| TableError::File { path, source })?;
            }
        }
        Ok(TableSummary {
            name: self.table.name.to_owned(),
            rows: self.rows,
            stands_for: self.rows,
            hash: self.hasher.finalize().to_hex().to_string(),
        })
    }
}

fn write_all(
    mut sinks: Vec<Sink>,
    inbox: &Receiver<Batch>,
) -> Result<Vec<TableSummary>, TableError> {
    for batch in inbox {
        if let Some(sink) = sinks.iter_mut().find(|it| it.table.name == batch.table.name) {
            sink.take(&batch)?;
        }
    }
    sinks.into_iter().map(Sink::finish).collect()
}
