//! What is known of a host.
//!
//! Owns: one host's counters. Must not: grow with time.

/// Counters of one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    pub(super) starts: u32,
    pub(super) crashes: u32,
    /// When it started, while it runs.
    up_since: Option<u64>,
    uptime: u64,
    pub(super) submitted: u64,
    pub(super) finished: u64,
    pub(super) failed: u64,
    pub(super) served: u64,
    pub(super) prompts: u64,
    pub(super) attested_prompts: u64,
    pub(super) spend: u64,
    pub(super) income: u64,
    pub(super) settled: u64,
    pub(super) engine: u64,
    pub(super) exposure: u64,
    pub(super) jobs_lost: u64,
    pub(super) paid_lost: u64,
    pub(super) unpaid: u64,
    /// As a consumer: the most that a job, and all with one provider, were ahead of its payments, in
    /// thousandths of a step.
    pub(super) job_ahead: u64,
    pub(super) channel_ahead: u64,
}

impl Account {
    pub(super) fn start(&mut self, at: u64) {
        self.starts += 1;
        self.up_since.get_or_insert(at);
    }

    pub(super) fn stop(&mut self, at: u64, crashed: bool) {
        self.crashes += u32::from(crashed);
        if let Some(since) = self.up_since.take() {
            self.uptime += at.saturating_sub(since);
        }
    }

    /// How long it ran in all, if the run ends now.
    pub(super) fn uptime(&self, now: u64) -> u64 {
        self.uptime + self.up_since.map_or(0, |since| now.saturating_sub(since))
    }
}
