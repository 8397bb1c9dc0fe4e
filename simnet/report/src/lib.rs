//! What a run was: tables, figures, a report that a person can read, comparisons of runs.
//!
//! Owns: how facts become rows and figures, the one list of columns, the files of a result.
//! Must not: change a run, know a tier, or put a fact of the machine into a result: equal scenario,
//! seed and build give equal bytes. Only `machine.json` is about the machine.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod compare;
pub mod describe;
pub mod figures;
pub mod histogram;
pub mod html;
pub mod machine;
mod plot;
pub mod recorder;
pub mod results;
pub mod schema;
pub mod statistics;
pub mod table;
mod watch;

pub use compare::{Comparison, Group};
pub use describe::{Description, HostLabel, Region};
pub use machine::Machine;
pub use recorder::{Options, Recorder, Violation};
pub use results::{LoadError, Results, WriteError, load, write};
pub use table::{Destination, Format, TableError};
pub use watch::Watch;
