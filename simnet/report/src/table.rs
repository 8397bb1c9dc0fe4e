//! Rows on their way to files: batches of columns, a thread that writes them, hashes of content.
//!
//! Owns: bounded memory (a batch a table and a few on their way), thinning, and complete files after an
//! interruption: a table has another name until it is whole.
//! Must not: do its work in the run's thread. Whoever writes Parquet makes hash maps, and a hash map that is
//! made in a simulation's thread draws from the simulation's randomness: what watches would change what
//! happens.

mod batch;
mod csv;
mod parquet;
mod writer;

pub use batch::Cell;
pub(crate) use writer::Tables;
pub use writer::{Destination, Format, TableError, TableSummary};
