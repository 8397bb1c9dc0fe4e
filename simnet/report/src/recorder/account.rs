//! What is known of each host.
//!
//! Owns: every host's counters. Must not: grow with time, or keep counters of a host that has done
//! nothing but run: most hosts of a large run are such.

/// When a host ran, and where its counters are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Life {
    /// When it started, while it runs.
    up_since: Option<u64>,
    uptime: u64,
    pub(super) starts: u32,
    pub(super) crashes: u32,
    /// The place of its account plus one; zero while it has none.
    account: u32,
}

/// Counters of one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    pub(super) submitted: u32,
    pub(super) finished: u32,
    pub(super) failed: u32,
    pub(super) served: u32,
    pub(super) prompts: u32,
    pub(super) attested_prompts: u32,
    pub(super) jobs_lost: u32,
    pub(super) spend: u64,
    pub(super) income: u64,
    pub(super) settled: u64,
    pub(super) engine: u64,
    pub(super) exposure: u64,
    pub(super) paid_lost: u64,
    pub(super) unpaid: u64,
    /// As a consumer: the most that a job, and all with one provider, were ahead of its payments, in
    /// thousandths of a step.
    pub(super) job_ahead: u64,
    pub(super) channel_ahead: u64,
}

impl Life {
    fn start(&mut self, at: u64) {
        self.starts += 1;
        self.up_since.get_or_insert(at);
    }

    fn stop(&mut self, at: u64, crashed: bool) {
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

/// All hosts.
#[derive(Debug)]
pub(super) struct Accounts {
    lives: Vec<Life>,
    accounts: Vec<Account>,
    /// Of a host without counters.
    nothing: Account,
}

impl Accounts {
    pub(super) fn new(hosts: usize) -> Self {
        let lives = vec![Life::default(); hosts];
        Self { lives, accounts: Vec::new(), nothing: Account::default() }
    }

    fn life(&mut self, host: u32) -> Option<&mut Life> {
        self.lives.get_mut(usize::try_from(host).ok()?)
    }

    /// Names the memory of a host's entry, or of the counter that changes most.
    pub(super) fn place(&self, host: u32, step: u8) -> *const u8 {
        let life = usize::try_from(host).ok().and_then(|it| self.lives.get(it));
        if step == 0 {
            return life.map_or(std::ptr::null(), |life| std::ptr::from_ref(life).cast());
        }
        let place = life.and_then(|life| usize::try_from(life.account.checked_sub(1)?).ok());
        let account = place.and_then(|place| self.accounts.get(place));
        account.map_or(std::ptr::null(), |it| std::ptr::from_ref(&it.exposure).cast())
    }

    pub(super) fn start(&mut self, host: u32, at: u64) {
        if let Some(life) = self.life(host) {
            life.start(at);
        }
    }

    pub(super) fn stop(&mut self, host: u32, at: u64, crashed: bool) {
        if let Some(life) = self.life(host) {
            life.stop(at, crashed);
        }
    }

    /// A host's counters, to be changed.
    pub(super) fn entry(&mut self, host: u32) -> Option<&mut Account> {
        let life = self.lives.get_mut(usize::try_from(host).ok()?)?;
        if life.account == 0 {
            self.accounts.push(Account::default());
            life.account = u32::try_from(self.accounts.len()).ok()?;
        }
        self.accounts.get_mut(usize::try_from(life.account - 1).ok()?)
    }

    /// Every host, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Life, &Account)> {
        self.lives.iter().map(|life| {
            let place = life.account.checked_sub(1).and_then(|it| usize::try_from(it).ok());
            (life, place.and_then(|it| self.accounts.get(it)).unwrap_or(&self.nothing))
        })
    }

    pub(super) fn lives(&self) -> impl Iterator<Item = &Life> {
        self.lives.iter()
    }
}
