//! What was earned and spent, added up by day, model, peer or API key.
//!
//! Owns: the sums. Must not: round or leave anything out: a report's total is the accounts' total.

use std::collections::BTreeMap;

use cocoon_protocol::record::{Account, Posting, Purpose, Standing};
use cocoon_protocol::units::NanoTon;

use crate::accounts::{self, AccountsError};
use crate::control::{AccountLine, AccountQuery, Grouping, LinePurpose};
use crate::store::Store;

const DAY: u64 = 86_400_000;

/// The lines of a report, in the order of their groups. Lines for no job stand apart.
pub(crate) fn report(
    store: &Store,
    query: &AccountQuery,
    name: impl Fn(Account) -> Option<String>,
) -> Result<Vec<AccountLine>, AccountsError> {
    let mut groups: BTreeMap<_, AccountLine> = BTreeMap::new();
    accounts::visit(store, query.from, |posting| {
        if query.until.is_some_and(|until| posting.began >= until) {
            return false;
        }
        if posting.provided == query.provided {
            let line = empty(&posting, &query.by, &name);
            let key = (
                line.day_start,
                line.model.map(|model| *model.as_bytes()),
                line.peer.map(|peer| *peer.as_bytes()),
                line.key.clone(),
                posting.purpose,
            );
            groups.entry(key).or_insert(line).add(&posting);
        }
        true
    })?;
    Ok(groups.into_values().collect())
}

fn empty(
    posting: &Posting,
    by: &[Grouping],
    name: &impl Fn(Account) -> Option<String>,
) -> AccountLine {
    let grouped = |group: Grouping| by.contains(&group);
    let job = posting.purpose == Purpose::Job;
    // When a forgotten promise was made, nobody knows.
    let dated = grouped(Grouping::Day) && posting.purpose != Purpose::Forgotten;
    let day = posting.began.as_unix_millis() / DAY;
    AccountLine {
        day_start: dated
            .then(|| cocoon_protocol::units::Timestamp::from_unix_millis(day.saturating_mul(DAY))),
        model: (grouped(Grouping::Model) && job).then_some(posting.model),
        peer: grouped(Grouping::Peer).then_some(posting.peer),
        key: (grouped(Grouping::Key) && job)
            .then(|| name(posting.account).unwrap_or_else(|| tag(posting.account))),
        purpose: match posting.purpose {
            Purpose::Job => LinePurpose::Job,
            Purpose::Debt => LinePurpose::Debt,
            Purpose::Forgotten => LinePurpose::Forgotten,
        },
        jobs: 0,
        without_receipt: 0,
        prompt: 0,
        completion: 0,
        amount: NanoTon::ZERO,
    }
}

/// An account without a name: one that is in no file any more, or nobody in particular.
fn tag(account: Account) -> String {
    if account == Account::default() { "-".to_owned() } else { hex::encode(account.as_bytes()) }
}

impl AccountLine {
    fn add(&mut self, posting: &Posting) {
        let receipted = matches!(posting.standing, Standing::Receipted(_));
        if posting.purpose == Purpose::Job {
            self.jobs = self.jobs.saturating_add(1);
            self.without_receipt = self.without_receipt.saturating_add(u64::from(!receipted));
        }
        self.prompt = self.prompt.saturating_add(posting.usage.prompt.get().into());
        self.completion = self.completion.saturating_add(posting.usage.completion.get().into());
        self.amount = self.amount.saturating_add(posting.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Record, Table};
    use cocoon_protocol::channel::ChannelId;
    use cocoon_protocol::identity::{JobId, ModelHash, NodeId, ReceiptHash, TonAddress};
    use cocoon_protocol::job::Usage;
    use cocoon_protocol::units::{Timestamp, Tokens};
    use proptest::prelude::*;

    fn posting((at, number, provided, amount): (u64, u8, bool, u64)) -> Posting {
        let peer = NodeId::from_bytes([number % 3; 32]);
        Posting {
            began: Timestamp::from_unix_secs(at),
            provided,
            purpose: [Purpose::Job, Purpose::Debt, Purpose::Forgotten][usize::from(number % 3)],
            job: JobId::from_bytes([number; 32]),
            peer,
            channel: ChannelId {
                vault: TonAddress { workchain: 0, hash: [3; 32] },
                provider: peer,
                epoch: 1,
            },
            model: ModelHash::from_bytes([number % 4; 32]),
            account: Account::from_bytes([number % 5; 16]),
            usage: Usage { prompt: Tokens::new(1), completion: Tokens::new(2) },
            amount: NanoTon::from_nano(amount),
            standing: if number % 2 == 0 {
                Standing::Interrupted
            } else {
                Standing::Receipted(ReceiptHash::from_bytes([number; 32]))
            },
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn however_it_is_grouped_the_sum_is_the_accounts(
            lines in prop::collection::vec((0u64..400_000, any::<u8>(), any::<bool>(), 0u64..1 << 40), 0..60),
            from in 0u64..300_000, length in 1u64..300_000, provided: bool, groups in 0usize..16,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let store = Store::in_memory().unwrap();
            let lines: BTreeMap<_, _> =
                lines.into_iter().map(posting).map(|it| (it.key(), it)).collect();
            let put = |it: &Posting| Record::put(Table::Posting, it.key(), it.encode());
            runtime.block_on(store.commit(lines.values().map(put).collect())).unwrap();
            let all = [Grouping::Day, Grouping::Model, Grouping::Peer, Grouping::Key];
            let by = all.into_iter().enumerate();
            let by = by.filter(|(bit, _)| groups >> bit & 1 == 1).map(|(_, group)| group).collect();
            let (first, end) = (Timestamp::from_unix_secs(from), Timestamp::from_unix_secs(from + length));
            let query = AccountQuery { provided, from: first, until: Some(end), by };
            let report = report(&store, &query, |_| None).unwrap();
            let within = |it: &&Posting| {
                it.provided == provided && it.began >= first && it.began < end
            };
            let expected: u64 = lines.values().filter(within).map(|it| it.amount.as_nano()).sum();
            let jobs = lines.values().filter(within).filter(|it| it.purpose == Purpose::Job).count();
            prop_assert_eq!(report.iter().map(|line| line.amount.as_nano()).sum::<u64>(), expected);
            prop_assert_eq!(report.iter().map(|line| line.jobs).sum::<u64>(), jobs as u64);
        }
    }
}
