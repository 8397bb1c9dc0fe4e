//! Facts of the machine that a run was made on: time and memory that it took.
//!
//! Owns: `machine.json`, apart from the results, which must not depend on the machine.
//! Must not: read a clock. The caller has the real time; processor time and memory are the kernel's.

use serde::{Deserialize, Serialize};

/// What a run took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Real time, seconds.
    pub wall_s: f64,
    /// Processor time of the process, user and system, seconds; `None` where the kernel does not say.
    pub cpu_s: Option<f64>,
    /// The most memory that the process had resident, bytes.
    pub peak_rss_bytes: Option<u64>,
    /// Virtual seconds for each second of processor time.
    pub speed: Option<f64>,
    /// Events for each second of processor time.
    pub events_per_cpu_s: Option<f64>,
}

impl Machine {
    /// Of this process until now. `wall_s` is the real time that the run took, `virtual_s` and `events` how
    /// far it came.
    pub fn of_this_process(wall_s: f64, virtual_s: f64, events: u64) -> Self {
        let cpu_s = cpu_seconds();
        let per_cpu = |amount: f64| cpu_s.filter(|it| *it > 0.0).map(|it| amount / it);
        let events = events as f64;
        Self {
            wall_s,
            cpu_s,
            peak_rss_bytes: peak_rss(),
            speed: per_cpu(virtual_s),
            events_per_cpu_s: per_cpu(events),
        }
    }

    /// `machine.json`.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// User and system time from proc(5), in ticks of 10 ms: `USER_HZ` is 100 on every Linux architecture that
/// Rust's standard library supports.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / 100.0)
}

fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
