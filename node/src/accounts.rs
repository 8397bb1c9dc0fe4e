//! The node's accounts: one durable line for every job that cost or brought money.
//!
//! Owns: reading the lines, and ending those of jobs that a killed process left running.
//! Must not: change an amount; the protocol writes it with the voucher that it belongs to.

use cocoon_protocol::layout::RecordError;
use cocoon_protocol::record::{Interrupted, Posting, Record as ProtocolRecord, Standing};
use cocoon_protocol::units::{Millis, Timestamp};

use crate::store::{BATCH_RECORDS, CommitError, ReadError, Record, Store, Table};

/// Lines read from the store at a time.
const PAGE: usize = 512;
/// No job runs for longer than this, so that a start does not read years of accounts.
const LONGEST_JOB: Millis = Millis::from_secs(7 * 86_400);

/// Why the accounts cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Read(#[source] ReadError),
    /// A line is not one.
    #[error("a line of the accounts is damaged; restore the data folder from a backup")]
    Damaged(#[source] RecordError),
    /// The store takes no records.
    #[error("the store does not take records; check the disk")]
    Commit(#[source] CommitError),
}

/// Shows every line that began at `from` or later, in the order of time, until `visit` says no.
pub(crate) fn visit(
    store: &Store,
    from: Timestamp,
    mut visit: impl FnMut(Posting) -> bool,
) -> Result<(), AccountsError> {
    let mut after = Posting::keys_from(from).to_vec();
    loop {
        let page = store.scan(Table::Posting, Some(&after), PAGE).map_err(AccountsError::Read)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after.clone_from(last);
        for (_, value) in &page {
            let posting = Posting::decode(value).map_err(AccountsError::Damaged)?;
            if !visit(posting) {
                return Ok(());
            }
        }
    }
}

/// Ends the lines of jobs that ran when the process was killed: what was promised for them stays
/// promised, and no receipt will come. Called before anything runs.
pub(crate) async fn end_what_ran(store: &Store, now: Timestamp) -> Result<(), AccountsError> {
    let recent = now.as_unix_millis().saturating_sub(LONGEST_JOB.get());
    let mut ended = Vec::new();
    visit(store, Timestamp::from_unix_millis(recent), |posting| {
        if posting.standing == Standing::Running {
            ended.extend(end(posting, now));
        }
        true
    })?;
    for batch in ended.chunks(BATCH_RECORDS) {
        store.commit(batch.to_vec()).await.map_err(AccountsError::Commit)?;
    }
    Ok(())
}

/// The records that end a line.
fn end(posting: Posting, now: Timestamp) -> Vec<Record> {
    let ended = Posting { standing: Standing::Interrupted, ..posting };
    let line = ProtocolRecord::Posting(ended);
    let mut records = vec![Record::put(Table::Posting, line.key(), line.encode())];
    if !posting.provided {
        let Posting { job, peer: provider, amount: paid, .. } = posting;
        let lost = ProtocolRecord::Interrupted(Interrupted { job, provider, paid, at: now });
        records.push(Record::put(Table::Interrupted, lost.key(), lost.encode()));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_protocol::channel::ChannelId;
    use cocoon_protocol::identity::{JobId, ModelHash, NodeId, TonAddress};
    use cocoon_protocol::job::Usage;
    use cocoon_protocol::record::{Account, Purpose};
    use cocoon_protocol::units::NanoTon;

    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

    fn posting(began: Timestamp, number: u8, provided: bool) -> Posting {
        let peer = NodeId::from_bytes([2; 32]);
        Posting {
            began,
            provided,
            purpose: Purpose::Job,
            job: JobId::from_bytes([number; 32]),
            peer,
            channel: ChannelId {
                vault: TonAddress { workchain: 0, hash: [3; 32] },
                provider: peer,
                epoch: 1,
            },
            model: ModelHash::from_bytes([4; 32]),
            account: Account::default(),
            usage: Usage::default(),
            amount: NanoTon::from_nano(7),
            standing: Standing::Running,
        }
    }

    #[tokio::test]
    async fn what_ran_when_the_process_was_killed_is_ended_once() {
        let store = Store::in_memory().unwrap();
        let lines = [posting(NOW, 1, false), posting(NOW, 2, true)];
        let put = |it: &Posting| Record::put(Table::Posting, it.key(), it.encode());
        store.commit(lines.iter().map(put).collect()).await.unwrap();
        for _ in 0..2 {
            end_what_ran(&store, NOW.after(Millis::from_secs(9))).await.unwrap();
            let mut seen = Vec::new();
            visit(&store, Timestamp::EPOCH, |it| {
                seen.push((it.job, it.standing));
                true
            })
            .unwrap();
            let ended = |line: &Posting| (line.job, Standing::Interrupted);
            assert_eq!(seen, lines.iter().map(ended).collect::<Vec<_>>());
            let lost = store.scan(Table::Interrupted, None, 9).unwrap();
            assert_eq!(lost.len(), 1, "only what this node has paid for");
            let lost = Interrupted::decode(&lost[0].1).unwrap();
            assert_eq!((lost.job, lost.paid), (lines[0].job, lines[0].amount));
        }
    }

    #[tokio::test]
    async fn lines_are_read_from_a_moment_on_and_past_a_page() {
        let store = Store::in_memory().unwrap();
        let lines: Vec<_> = (0..1_000_u64)
            .map(|at| posting(Timestamp::from_unix_secs(at), u8::try_from(at % 251).unwrap(), true))
            .collect();
        let put = |it: &Posting| Record::put(Table::Posting, it.key(), it.encode());
        store.commit(lines.iter().map(put).collect()).await.unwrap();
        let mut seen = Vec::new();
        visit(&store, Timestamp::from_unix_secs(400), |it| {
            seen.push(it.began.as_unix_secs());
            true
        })
        .unwrap();
        assert_eq!(seen, (400..1_000).collect::<Vec<_>>());
    }
}
