//! `engine-worker`, hidden: the child process in which llama.cpp runs.
//!
//! Owns: nothing. Must not: print, log or read settings: both streams carry the engine's frames.

use std::process::ExitCode;

/// Runs the worker until its input ends.
#[cfg(feature = "llama")]
pub(super) fn run() -> ExitCode {
    cocoon_engine::llama::worker_main()
}

/// This build has no llama.cpp in it.
#[cfg(not(feature = "llama"))]
pub(super) fn run() -> ExitCode {
    super::ExitStatus::Failure.into()
}
