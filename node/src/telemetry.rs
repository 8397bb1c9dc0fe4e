//! Where log lines go, and what may never be in one.
//!
//! Owns: the subscriber and the panic hook of the process.
//! Must not: write to standard output (that is for data), or read the environment.
//! Invariant: a panic's message is never shown. The standard library quotes the text that it
//! failed on (`byte index 3 is not a char boundary; it is inside …`), which may be a prompt.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::config::{LogFilter, LogFormat};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter was refused after all.
    #[error("the log filter was refused")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Something else installed a subscriber before.
    #[error("a log subscriber is already installed in this process")]
    AlreadyInstalled,
}

/// Sends log lines to standard error and replaces the panic hook. Once per process.
pub fn install(filter: &LogFilter, format: LogFormat, colour: bool) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter.as_str()).map_err(TelemetryError::Filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_timer(SystemTime);
    let installed = match format {
        LogFormat::Text => builder.with_ansi(colour).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|_| TelemetryError::AlreadyInstalled)?;
    std::panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// Logs where a panic happened and in which thread; not what it says.
fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let place = info.location().map(ToString::to_string);
    tracing::error!(
        place = place.as_deref().unwrap_or("unknown"),
        thread = thread.name().unwrap_or("unnamed"),
        "a part of this node failed by a bug; its message is withheld because it may quote a prompt"
    );
}
