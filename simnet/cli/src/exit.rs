//! What the program ends with.
//!
//! Owns: the list of exit codes. Must not: end the program; `main` returns.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// As it should.
    Done,
    /// It could not be done, or what should be equal differs.
    Failed,
    /// An invariant was violated.
    Violation,
    /// Ctrl-C; what there was is there.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Violation => 2,
            Exit::Interrupted => 130,
        })
    }
}
