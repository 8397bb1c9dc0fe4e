//! Channels: what was promised, held and paid in each.
//!
//! Owns: one entry a channel that was ever used. Must not: judge; invariants are checked elsewhere.

use std::collections::HashMap;

use cocoon_protocol::channel::ChannelId;
use simnet_host::invariant::short;

use super::jobs::Quick;

/// What was promised, held and paid in a channel, and between whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channel {
    pub(super) promised: u64,
    pub(super) held: u64,
    pub(super) settled: u64,
    /// Who has promised, once somebody has.
    pub(super) consumer: Option<u32>,
    pub(super) provider: Option<u32>,
    pub(super) epoch: u32,
    /// In the order of the first facts about them.
    number: u32,
}

/// All channels, each under eight bytes. One look for a fact, and with a million hosts each look
/// is a wait for memory.
#[derive(Debug, Default)]
pub(super) struct Money {
    channels: HashMap<u64, Channel, Quick>,
}

impl Money {
    fn channel(
        &mut self,
        channel: &ChannelId,
        provider: impl FnOnce() -> Option<u32>,
    ) -> &mut Channel {
        let number = u32::try_from(self.channels.len()).unwrap_or(u32::MAX);
        self.channels.entry(short(channel)).or_insert_with(|| Channel {
            promised: 0,
            held: 0,
            settled: 0,
            consumer: None,
            provider: provider(),
            epoch: channel.epoch,
            number,
        })
    }

    /// A consumer's promise; how much more it is than before.
    pub(super) fn promised(
        &mut self,
        channel: &ChannelId,
        consumer: u32,
        provider: impl FnOnce() -> Option<u32>,
        cumulative: u64,
    ) -> u64 {
        let entry = self.channel(channel, provider);
        entry.consumer = Some(consumer);
        let step = cumulative.saturating_sub(entry.promised);
        entry.promised += step;
        step
    }

    /// A provider's best voucher; how much more it is than before.
    pub(super) fn held(&mut self, channel: &ChannelId, provider: u32, cumulative: u64) -> u64 {
        let entry = self.channel(channel, || Some(provider));
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
        let entry = self.channel(channel, || Some(provider));
        let step = paid.saturating_sub(entry.settled);
        entry.settled += step;
        (entry.consumer, step)
    }

    /// Every channel by consumer, provider and epoch.
    pub(super) fn channels(&self) -> Vec<Channel> {
        let mut all: Vec<_> = self.channels.values().copied().collect();
        // Who is not known comes last.
        let place = |host: Option<u32>| host.unwrap_or(u32::MAX);
        all.sort_unstable_by_key(|it| {
            (place(it.consumer), place(it.provider), it.epoch, it.number)
        });
        all
    }
}
