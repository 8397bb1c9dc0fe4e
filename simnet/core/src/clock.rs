//! The two clocks of a run: the virtual one that the simulated program sees, and the machine's own.
//!
//! Owns: how virtual nanoseconds become the system's clocks, and readings of real time and memory
//! for whoever watches a run. Must not: let a reading of the machine reach the simulated program.

use std::fs;
use std::time::Duration;

use futures_timer::sim;

use crate::interpose;

/// What the monotonic clocks show at the start of a run: eleven days after the machine started, so
/// that a program may subtract any reasonable duration from `Instant::now()`.
pub(crate) const MONOTONIC_START: Duration = Duration::from_secs(1_000_000);
/// What the calendar shows at the start of a run unless told otherwise: 2025-10-09 08:53:20 UTC.
pub const CALENDAR_START: Duration = Duration::from_secs(1_760_000_000);

/// Virtual time since the start of the run; zero on a thread that simulates nothing.
///
/// The simulated program itself just asks `Instant::now()` or `SystemTime::now()`.
#[must_use]
pub fn now() -> Duration {
    Duration::from_nanos(sim::now())
}

/// Real time since some fixed moment, also on a simulation thread.
#[must_use]
pub fn wall() -> Duration {
    interpose::real_clock(libc::CLOCK_MONOTONIC)
}

/// Processor time that this thread has used.
#[must_use]
pub fn cpu() -> Duration {
    interpose::real_clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Bytes of memory that this process has resident (`VmRSS`); zero if the system does not say.
#[must_use]
pub fn resident() -> u64 {
    status_line("VmRSS:")
}

/// The most bytes that this process ever had resident (`VmHWM`); zero if the system does not say.
#[must_use]
pub fn resident_peak() -> u64 {
    status_line("VmHWM:")
}

/// See proc_pid_status(5): a name, then a number of kibibytes.
fn status_line(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1024)
}
