//! Settlements are covered and happen once: the ledger pays what was promised, up to the limit, and
//! never the same twice; what is not paid goes back.
//!
//! Owns: what each channel has paid. Must not: trust what the vault says it had paid before.

use cocoon_protocol::channel::ChannelId;
use cocoon_protocol::units::NanoTon;

use super::Verdict;
use super::place::{ByChannel, short};
use crate::ledger::LedgerFact;

pub(super) const NAME: &str = "settled-once";

#[derive(Clone, Copy, Debug, Default)]
struct Paid {
    paid: NanoTon,
    /// What arrived with its owners.
    arrived: NanoTon,
    limit: NanoTon,
    /// A reorganisation took a payment back, so that somebody may have seen more.
    undone: bool,
}

#[derive(Debug, Default)]
pub(super) struct Settlements {
    channels: ByChannel<Paid>,
}

impl Settlements {
    pub(super) fn ledger(
        &mut self,
        fact: &LedgerFact,
        promised_in: impl Fn(&ChannelId) -> Option<NanoTon>,
    ) -> Verdict {
        match fact {
            LedgerFact::Allocated { channel, limit } => {
                self.channels.entry(short(channel)).or_default().limit = *limit;
            }
            LedgerFact::Settled { channel, promised, before, paid, limit, arrived } => {
                let known = self.channels.entry(short(channel)).or_default();
                let had = std::mem::replace(&mut known.paid, *paid);
                known.limit = *limit;
                known.arrived = known.arrived.saturating_add(*arrived);
                if *before != had {
                    return Err(format!("{had} was paid, and the vault pays on from {before}"));
                }
                if paid <= before {
                    return Err(format!("a settlement pays nothing: {before}, then {paid}"));
                }
                if paid > limit || known.arrived > *limit {
                    let arrived = known.arrived;
                    return Err(format!("{paid} paid and {arrived} arrived of a limit of {limit}"));
                }
                if paid > promised {
                    return Err(format!("{paid} is paid for a voucher of {promised}"));
                }
                if let Some(durable) = promised_in(channel).filter(|durable| paid > durable) {
                    return Err(format!("{paid} is paid, {durable} was promised durably"));
                }
            }
            LedgerFact::Released { channel, returned } => {
                let known = self.channels.entry(short(channel)).or_default();
                let rest = known.limit.saturating_sub(known.paid);
                if *returned > rest {
                    return Err(format!("{returned} comes back, {rest} is left"));
                }
            }
            LedgerFact::Undone(undone) => self.undo(undone),
            LedgerFact::Funded { .. }
            | LedgerFact::Opened { .. }
            | LedgerFact::ReleaseRequested { .. }
            | LedgerFact::Withdrawn { .. }
            | LedgerFact::Refused { .. } => {}
        }
        Ok(())
    }

    fn undo(&mut self, fact: &LedgerFact) {
        if let LedgerFact::Settled { channel, before, arrived, .. } = fact {
            let known = self.channels.entry(short(channel)).or_default();
            known.paid = *before;
            known.arrived = known.arrived.saturating_sub(*arrived);
            known.undone = true;
        }
    }

    /// A provider believes that so much was paid.
    pub(super) fn seen(&self, channel: &ChannelId, paid: NanoTon) -> Verdict {
        let known = self.channels.get(&short(channel)).copied().unwrap_or_default();
        if paid > known.paid && !known.undone {
            return Err(format!("a provider was told that {paid} is paid; it is {}", known.paid));
        }
        Ok(())
    }
}
