//! Proofs of this node's receipts: each with its place in the channel's log, under the root that
//! the vault stores where it can.
//!
//! Owns: reading logs from the store and their roots from the ledger.
//! Must not: decide what a proof shows; `proof.rs` does.

use std::collections::BTreeMap;

use cocoon_ledger::Ledger;
use cocoon_ledger::operations::read_vault;
use cocoon_protocol::channel::ChannelId;
use cocoon_protocol::identity::ReceiptHash;
use cocoon_protocol::receipt::Log;
use cocoon_protocol::record::{Logged, StoredReceipt, channel_key};

use crate::control::{ProofStanding, Refusal};
use crate::driver::ledger_desk::chain;
use crate::proof::ProofFile;
use crate::store::{ReadError, Store, Table};

/// Places of a log read from the store at a time.
const PAGE: usize = 512;

/// A channel's log, and how much of it stands under the root on the ledger.
#[derive(Debug)]
struct Known {
    log: Log,
    settled: Settled,
}

/// What the ledger says about a log.
#[derive(Clone, Copy, Debug)]
enum Settled {
    /// It stores the root of so many first receipts; the flag: the reading was proved.
    First(usize, bool),
    /// It stores a root that was never this log's, or no allocation any more.
    Other,
    /// It did not answer.
    Unread,
}

/// Makes proofs; remembers each channel's log meanwhile.
#[derive(Debug)]
pub(crate) struct Prover<'a> {
    store: &'a Store,
    ledger: &'a dyn Ledger,
    known: BTreeMap<Vec<u8>, Known>,
}

fn failed(error: &dyn std::error::Error) -> Refusal {
    Refusal::Failed { reason: chain(error) }
}

impl<'a> Prover<'a> {
    pub(crate) const fn new(store: &'a Store, ledger: &'a dyn Ledger) -> Self {
        Self { store, ledger, known: BTreeMap::new() }
    }

    /// The proof of one receipt, and how far its root is.
    pub(crate) async fn prove(
        &mut self,
        stored: &StoredReceipt,
    ) -> Result<(ProofFile, ProofStanding), Refusal> {
        let verified = stored.receipt.verify().map_err(|error| failed(&error))?;
        let (receipt, stated) = (verified.hash(), verified.receipt());
        let channel =
            ChannelId { vault: stated.vault, provider: stated.provider, epoch: stated.epoch };
        let known = self.known(channel).await?;
        let place = known.log.receipts().iter().position(|logged| *logged == receipt);
        let whole = known.log.receipts().len();
        let (size, standing) = match (place, known.settled) {
            (None, _) => (None, ProofStanding::NoLog),
            (Some(place), Settled::First(size, proved)) if place < size => {
                (Some(size), ProofStanding::Settled { verified: proved })
            }
            (Some(_), Settled::First(..)) => (Some(whole), ProofStanding::NotSettled),
            (Some(_), Settled::Other) => (Some(whole), ProofStanding::OtherRoot),
            (Some(_), Settled::Unread) => (Some(whole), ProofStanding::Unread),
        };
        let file = ProofFile::new(stored, size.map(|size| (&known.log, size)), true);
        let unreadable = || Refusal::Failed { reason: "the receipt does not hold".to_owned() };
        Ok((file.ok_or_else(unreadable)?, standing))
    }

    /// Proofs of the receipts whose names follow `after`, in the order of their names.
    pub(crate) async fn page(
        &mut self,
        after: Option<ReceiptHash>,
        limit: usize,
    ) -> Result<Vec<ProofFile>, Refusal> {
        let after = after.map(|after| *after.as_bytes());
        let entries = self.store.scan(Table::Receipt, after.as_ref().map(|it| &it[..]), limit);
        let mut files = Vec::new();
        for (_, value) in entries.map_err(|error| failed(&error))? {
            let stored = StoredReceipt::decode(&value).map_err(|error| failed(&error))?;
            files.push(self.prove(&stored).await?.0);
        }
        Ok(files)
    }

    async fn known(&mut self, channel: ChannelId) -> Result<&Known, Refusal> {
        let key = channel_key(channel);
        if !self.known.contains_key(&key) {
            let log = read_log(self.store, channel).map_err(|error| failed(&error))?;
            let settled = match read_vault(self.ledger, channel.vault).await {
                Err(_) => Settled::Unread,
                Ok(view) => {
                    let allocation = view.as_ref().and_then(|it| it.allocation(&channel.provider));
                    let allocation = allocation.filter(|it| it.epoch == channel.epoch);
                    let size = allocation.and_then(|it| log.size_at(&it.receipts_root));
                    let verified = view.as_ref().is_some_and(|view| view.verified);
                    size.map_or(Settled::Other, |size| Settled::First(size, verified))
                }
            };
            self.known.insert(key.clone(), Known { log, settled });
        }
        let gone = || Refusal::Failed { reason: "a log was lost".to_owned() };
        self.known.get(&key).ok_or_else(gone)
    }
}

/// A channel's log, as far as it is known from its first receipt on.
fn read_log(store: &Store, channel: ChannelId) -> Result<Log, ReadError> {
    let prefix = channel_key(channel);
    let (mut log, mut after) = (Log::default(), prefix.clone());
    let mut next = 0_u64;
    loop {
        let page = store.scan(Table::Log, Some(&after), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(log) };
        after.clone_from(last);
        for (key, value) in &page {
            let logged = Logged::decode(value).ok().filter(|it| it.index == next);
            // The next channel's, or a gap, behind which no root can be computed.
            let Some(logged) = logged.filter(|_| key.starts_with(&prefix)) else { return Ok(log) };
            log.append(logged.receipt);
            next = next.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Record;
    use cocoon_protocol::identity::{NodeId, TonAddress};

    #[tokio::test]
    async fn a_log_is_read_in_order_up_to_a_gap_and_never_into_the_next_channels() {
        let store = Store::in_memory().unwrap();
        let vault = TonAddress { workchain: 0, hash: [1; 32] };
        let channel = |epoch| ChannelId { vault, provider: NodeId::from_bytes([2; 32]), epoch };
        let receipt = |index: u64| {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&index.to_be_bytes());
            ReceiptHash::from_bytes(name)
        };
        let places = (0..700).chain(701..705).map(|index| (1, index));
        let records = places.chain([(2, 0), (2, 1)]).map(|(epoch, index)| {
            let logged = Logged { channel: channel(epoch), index, receipt: receipt(index) };
            Record::put(Table::Log, logged.key(), logged.encode())
        });
        store.commit(records.collect()).await.unwrap();
        let first = read_log(&store, channel(1)).unwrap();
        assert_eq!(first.receipts(), (0..700).map(receipt).collect::<Vec<_>>());
        assert_eq!(read_log(&store, channel(2)).unwrap().receipts().len(), 2);
        assert!(read_log(&store, channel(3)).unwrap().receipts().is_empty());
    }
}
