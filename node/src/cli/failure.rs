//! Why a command failed, as its user reads it: the error, its causes, and what to do.
//!
//! Owns: which exit code and hint each of the node's errors gets.
//! Must not: make up causes; texts live with the errors.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use super::exit::ExitStatus;
use crate::config::ConfigError;
use crate::control::{BindError, ControlError};
use crate::data_folder::{FolderError, LockError};
use crate::keystore::{AdoptError, KeystoreError};
use crate::run::RunError;
use crate::start::EvidenceError;
use crate::store;
use crate::telemetry::TelemetryError;

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    status: ExitStatus,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    /// A failure with exit code 1 and no hint.
    pub(crate) fn new(error: impl Into<anyhow::Error>) -> Self {
        Self { status: ExitStatus::Failure, error: error.into(), hint: None }
    }

    pub(crate) fn with_status(mut self, status: ExitStatus) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn with_hint(mut self, hint: Option<impl Into<String>>) -> Self {
        self.hint = hint.map(Into::into);
        self
    }

    /// The exit code.
    pub(crate) const fn status(&self) -> ExitStatus {
        self.status
    }

    /// Whoever read the output has gone away, which is no failure of ours.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The error, a line for each cause, and after an empty line the hint.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("error: {}\n", self.error);
        // Writing to a `String` cannot fail.
        for cause in self.error.chain().skip(1) {
            let _ = writeln!(text, "  caused by: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "\nhint: {hint}");
        }
        text
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let hint = error.hint();
        Self::new(error).with_status(ExitStatus::Usage).with_hint(hint)
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        let hint = error.hint();
        Self::new(error).with_hint(hint)
    }
}

impl From<KeystoreError> for Failure {
    fn from(error: KeystoreError) -> Self {
        let hint = error.hint();
        Self::new(error).with_hint(hint)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let status = match error {
            ControlError::NotRunning => ExitStatus::NotRunning,
            ControlError::Io(_) | ControlError::Malformed | ControlError::Refused(_) => {
                ExitStatus::Failure
            }
        };
        let hint = error.hint();
        Self::new(error).with_status(status).with_hint(hint)
    }
}

impl From<TelemetryError> for Failure {
    fn from(error: TelemetryError) -> Self {
        Self::new(error)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let (status, hint) = advice(&error);
        Self::new(error).with_status(status).with_hint(hint)
    }
}

/// The exit code and hint of the first cause that has any.
fn advice(error: &RunError) -> (ExitStatus, Option<String>) {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(LockError::Held { .. }) = error.downcast_ref() {
            let hint =
                "stop that process (`cocoon-node stop`), or give this one its own `--data-dir`";
            return (ExitStatus::InUse, Some(hint.to_owned()));
        }
        let hint = None
            .or_else(|| error.downcast_ref::<FolderError>().and_then(FolderError::hint))
            .or_else(|| error.downcast_ref::<KeystoreError>().and_then(KeystoreError::hint))
            .or_else(|| error.downcast_ref::<AdoptError>().and_then(AdoptError::hint))
            .or_else(|| error.downcast_ref::<EvidenceError>().map(|error| error.hint().to_owned()))
            .or_else(|| {
                let hint = error.downcast_ref::<store::OpenError>().and_then(|error| error.hint());
                hint.map(str::to_owned)
            })
            .or_else(|| {
                let hint = error.downcast_ref::<BindError>().and_then(BindError::hint);
                hint.map(str::to_owned)
            });
        if hint.is_some() {
            return (ExitStatus::Failure, hint);
        }
        cause = error.source();
    }
    (ExitStatus::Failure, None)
}
