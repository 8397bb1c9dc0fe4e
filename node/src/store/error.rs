//! Why the store cannot be opened, read or written.
//!
//! Owns: one error an operation. Must not: show a record's bytes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{BATCH_RECORDS, KEY_BYTES, Table, VALUE_BYTES};

/// Why a store was not opened. The file is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened or made.
    #[error("cannot open the store {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the store is open in another process")]
    InUse,
    /// The file is damaged or not a store at all.
    #[error("the store is damaged")]
    Damaged(#[source] Box<redb::Error>),
    /// A database, but not this program's.
    #[error("the store was not written by this program")]
    Foreign,
    /// Written by a newer version of this program.
    #[error("the store has version {found}; this program knows versions up to {known}")]
    Newer {
        /// The file's version.
        found: u32,
        /// The highest that is known here.
        known: u32,
    },
    /// The disk refused.
    #[error("the store could not be read or prepared")]
    Storage(#[source] Box<redb::Error>),
    /// The system has no thread for the writer.
    #[error("cannot start the store's writer thread")]
    NoThread(#[source] io::Error),
}

impl OpenError {
    /// What to do about it.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Damaged(_) | Self::Foreign => Some(
                "keep the file: it holds vouchers that are worth money; restore a backup, or \
                 start with another `--data-dir`",
            ),
            Self::Newer { .. } => Some("use the newer program that wrote it"),
            Self::InUse => Some("stop the other node, or give this one its own `--data-dir`"),
            Self::File { .. } | Self::Storage(_) | Self::NoThread(_) => None,
        }
    }

    pub(crate) fn from_redb(error: impl Into<redb::Error>) -> Self {
        let error = error.into();
        let invalid = |error: &io::Error| error.kind() == io::ErrorKind::InvalidData;
        let damaged = matches!(&error, redb::Error::Io(error) if invalid(error))
            || matches!(
                error,
                redb::Error::Corrupted(_)
                    | redb::Error::UpgradeRequired(_)
                    | redb::Error::RepairAborted
                    | redb::Error::TableTypeMismatch { .. }
            );
        if matches!(error, redb::Error::DatabaseAlreadyOpen) {
            Self::InUse
        } else if damaged {
            Self::Damaged(Box::new(error))
        } else {
            Self::Storage(Box::new(error))
        }
    }
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
#[error("the store could not be read")]
pub struct ReadError(#[source] Box<redb::Error>);

impl ReadError {
    pub(crate) fn from_redb(error: impl Into<redb::Error>) -> Self {
        Self(Box::new(error.into()))
    }
}

/// Why a batch is not durable. After `Failed` nothing more can be written: a disk that lost one
/// write may have lost others, so the node has to stop and start again from what is there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The disk refused this batch or an earlier one.
    #[error("the store could not be written; nothing more is accepted until a restart")]
    Failed(#[source] Arc<redb::Error>),
    /// The writer thread has ended.
    #[error("the store's writer has ended")]
    WriterGone,
    /// A record breaks a bound, by a bug of ours.
    #[error("a record of `{}` is larger than {KEY_BYTES} bytes of key and {VALUE_BYTES} of value", table.name())]
    RecordTooLarge {
        /// Its table.
        table: Table,
    },
    /// A batch breaks its bound, by a bug of ours.
    #[error("a batch has {records} records; at most {BATCH_RECORDS} fit")]
    TooManyRecords {
        /// Records in the batch.
        records: usize,
    },
}
