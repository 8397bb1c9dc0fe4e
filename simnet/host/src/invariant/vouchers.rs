//! Vouchers only grow: what was promised or held and durable is never less again, crash or not, and
//! nobody holds more than was promised.
//!
//! Owns: the highest promise and voucher of every channel. Must not: know allocations.
//!
//! A host states each channel that its store holds again before it states that it has started; so a
//! record that was lost shows as a lower amount or as one channel too few.

use std::collections::BTreeSet;

use cocoon_protocol::channel::ChannelId;
use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::NanoTon;

use super::Verdict;
use super::place::{ByChannel, ByHost, head, short};
use crate::fabric::HostId;

pub(super) const NAME: &str = "vouchers-monotone";

#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    promised: Option<NanoTon>,
    held: Option<NanoTon>,
}

/// Channels that a host's store holds, each end of one counted by itself.
#[derive(Clone, Copy, Debug, Default)]
struct Stored {
    channels: u32,
    /// Stated again since the process died; `None` while it lives.
    again: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Vouchers {
    channels: ByChannel<Watched>,
    hosts: ByHost<Stored>,
    /// Vaults whose holders may sign what they like.
    distrusted: BTreeSet<u64>,
}

impl Vouchers {
    pub(super) fn distrust(&mut self, vault: TonAddress) {
        self.distrusted.insert(head(&vault.hash));
    }

    fn is_trusted(&self, channel: &ChannelId) -> bool {
        !self.distrusted.contains(&head(&channel.vault.hash))
    }

    /// What was promised in a channel; `None` when its payer is not to be believed.
    pub(super) fn promised_in(&self, channel: &ChannelId) -> Option<NanoTon> {
        let watched = self.channels.get(&short(channel)).copied().unwrap_or_default();
        self.is_trusted(channel).then(|| watched.promised.unwrap_or(NanoTon::ZERO))
    }

    pub(super) fn promised(
        &mut self,
        host: HostId,
        channel: &ChannelId,
        cumulative: NanoTon,
    ) -> Verdict {
        let watched = self.channels.entry(short(channel)).or_default();
        let before = watched.promised.replace(cumulative.max(watched.promised.unwrap_or_default()));
        self.count(host, before.is_none());
        match before {
            Some(before) if cumulative < before => {
                Err(format!("a consumer had promised {before} durably and now {cumulative}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn held(
        &mut self,
        host: HostId,
        channel: &ChannelId,
        cumulative: NanoTon,
    ) -> Verdict {
        let trusted = self.is_trusted(channel);
        let watched = self.channels.entry(short(channel)).or_default();
        let promised = watched.promised.unwrap_or_default();
        let before = watched.held.replace(cumulative.max(watched.held.unwrap_or_default()));
        self.count(host, before.is_none());
        if before.is_some_and(|before| cumulative < before) {
            let before = before.unwrap_or_default();
            return Err(format!("a provider held {before} durably and now {cumulative}"));
        }
        if trusted && cumulative > promised {
            return Err(format!("a provider holds {cumulative}, but {promised} is promised"));
        }
        Ok(())
    }

    fn count(&mut self, host: HostId, new: bool) {
        let Some(stored) = self.hosts.entry(host) else { return };
        if let Some(again) = &mut stored.again {
            *again = again.saturating_add(1);
        }
        if new {
            stored.channels = stored.channels.saturating_add(1);
        }
    }

    pub(super) fn crashed(&mut self, host: HostId) {
        if let Some(stored) = self.hosts.entry(host) {
            stored.again = Some(0);
        }
    }

    /// A host runs again; it has stated every channel that its store holds.
    pub(super) fn restarted(&mut self, host: HostId) -> Verdict {
        let Some(stored) = self.hosts.entry(host) else { return Ok(()) };
        let (channels, again) = (stored.channels, stored.again.take());
        match again {
            Some(again) if again < channels => {
                Err(format!("of {channels} durable channels {again} are left after a crash"))
            }
            Some(_) | None => Ok(()),
        }
    }
}
