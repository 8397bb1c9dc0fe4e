//! Channels: what was promised, held and paid in each.
//!
//! Owns: one entry a channel that was ever used. Must not: judge; invariants are checked elsewhere.

use std::collections::HashMap;

use cocoon_protocol::channel::ChannelId;

use super::jobs::Quick;

/// A host that is not known.
const NOBODY: u32 = u32::MAX;

/// A channel by numbers: vault, provider, epoch.
type Key = (u32, u32, u32);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Channel {
    pub(super) promised: u64,
    pub(super) held: u64,
    pub(super) settled: u64,
}

/// All channels.
#[derive(Debug, Default)]
pub(super) struct Money {
    /// Vaults by the hash of their address: a number, in order of their first use.
    vaults: HashMap<[u8; 32], u32, Quick>,
    /// Whose vault it is, by the vault's number.
    owners: Vec<u32>,
    channels: HashMap<Key, Channel, Quick>,
}

fn known(host: u32) -> Option<u32> {
    (host != NOBODY).then_some(host)
}

impl Money {
    fn vault(&mut self, channel: &ChannelId) -> u32 {
        let next = u32::try_from(self.owners.len()).unwrap_or(NOBODY);
        let number = *self.vaults.entry(channel.vault.hash).or_insert(next);
        if number == next {
            self.owners.push(NOBODY);
        }
        number
    }

    fn owner(&self, vault: u32) -> u32 {
        let place = usize::try_from(vault).ok();
        place.and_then(|it| self.owners.get(it)).copied().unwrap_or(NOBODY)
    }

    fn channel(&mut self, channel: &ChannelId, provider: u32) -> &mut Channel {
        let vault = self.vault(channel);
        self.channels.entry((vault, provider, channel.epoch)).or_default()
    }

    /// A consumer's promise; how much more it is than before.
    pub(super) fn promised(
        &mut self,
        channel: &ChannelId,
        consumer: u32,
        provider: Option<u32>,
        cumulative: u64,
    ) -> u64 {
        let vault = self.vault(channel);
        if let Some(owner) = usize::try_from(vault).ok().and_then(|it| self.owners.get_mut(it)) {
            *owner = consumer;
        }
        let entry = self.channel(channel, provider.unwrap_or(NOBODY));
        let step = cumulative.saturating_sub(entry.promised);
        entry.promised += step;
        step
    }

    /// A provider's best voucher; how much more it is than before.
    pub(super) fn held(&mut self, channel: &ChannelId, provider: u32, cumulative: u64) -> u64 {
        let entry = self.channel(channel, provider);
        let step = cumulative.saturating_sub(entry.held);
        entry.held += step;
        step
    }

    /// A payment of the ledger: by whom, and how much more it is than before.
    pub(super) fn settled(
        &mut self,
        channel: &ChannelId,
        provider: u32,
        paid: u64,
    ) -> (Option<u32>, u64) {
        let vault = self.vault(channel);
        let owner = self.owner(vault);
        let entry = self.channel(channel, provider);
        let step = paid.saturating_sub(entry.settled);
        entry.settled += step;
        (known(owner), step)
    }

    /// Every channel by consumer, provider and epoch.
    pub(super) fn channels(&self) -> Vec<(Option<u32>, Option<u32>, u32, Channel)> {
        let numbered = |(key, channel): (&Key, &Channel)| (self.owner(key.0), *key, *channel);
        let mut all: Vec<_> = self.channels.iter().map(numbered).collect();
        all.sort_unstable_by_key(|it| (it.0, it.1.1, it.1.2, it.1.0));
        all.into_iter().map(|(owner, key, it)| (known(owner), known(key.1), key.2, it)).collect()
    }
}
