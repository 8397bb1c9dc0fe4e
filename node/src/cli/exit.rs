//! What the program's exit code says.
//!
//! Owns: the list. Scripts rely on it: a code is never reused for another meaning.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It did what was asked.
    Success,
    /// It could not.
    Failure,
    /// The command line, a variable or the configuration file is wrong.
    Usage,
    /// What was to be checked was checked and is not valid.
    Invalid,
    /// The command needs a running node, and none runs.
    NotRunning,
    /// The data folder is in use by another process.
    InUse,
}

impl ExitStatus {
    /// The number that a shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Invalid => 3,
            Self::NotRunning => 4,
            Self::InUse => 5,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}
