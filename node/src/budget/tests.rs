//! Tests: no order of jobs, payments and kills spends more than the caps.

use super::*;
use crate::store::{Record, Table};
use cocoon_protocol::channel::ChannelId;
use cocoon_protocol::identity::{ModelHash, TonAddress};
use cocoon_protocol::job::Usage;
use cocoon_protocol::record::{Purpose, Standing};
use proptest::prelude::*;

const NOON: Timestamp = Timestamp::from_unix_secs(1_800_014_400);

const fn nano(nano: u64) -> NanoTon {
    NanoTon::from_nano(nano)
}

const fn account(number: u8) -> Account {
    Account::from_bytes([number; 16])
}

const fn job(number: u8) -> JobId {
    JobId::from_bytes([number; 32])
}

fn caps(daily: u64, key: u64) -> Caps {
    let key = KeyCap { name: "ci".into(), daily: Some(nano(key)), request: Some(nano(50)) };
    Caps { daily: Some(nano(daily)), keys: BTreeMap::from([(account(1), key)]) }
}

fn posting(job: JobId, peer: u8, account: Account, amount: u64, began: Timestamp) -> Posting {
    let peer = NodeId::from_bytes([peer; 32]);
    Posting {
        began,
        provided: false,
        purpose: Purpose::Job,
        job,
        peer,
        channel: ChannelId {
            vault: TonAddress { workchain: 0, hash: [3; 32] },
            provider: peer,
            epoch: 1,
        },
        model: ModelHash::from_bytes([4; 32]),
        account,
        usage: Usage::default(),
        amount: nano(amount),
        standing: Standing::Running,
    }
}

fn budget(daily: u64, key: u64) -> Budget {
    Budget::open(caps(daily, key), &Store::in_memory().unwrap(), NOON).unwrap()
}

#[test]
fn what_runs_is_set_aside_and_what_it_did_not_cost_is_free_again() {
    let budget = budget(1_000, 100);
    assert_eq!(budget.for_request(account(1), nano(80)), nano(50));
    assert_eq!(budget.reserve(job(1), account(1), nano(60), NOON).ok(), Some(nano(60)));
    assert_eq!(budget.reserve(job(2), account(1), nano(60), NOON).ok(), Some(nano(40)));
    let refused = budget.reserve(job(3), account(1), nano(60), NOON).unwrap_err();
    let JobError::SpendingCap { retry_after: Some(_), reserved, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(*reserved, nano(100));
    assert!(refused.to_string().contains("the API key `ci` may spend"), "{refused}");
    budget.note(&posting(job(1), 7, account(1), 10, NOON));
    budget.note(&posting(job(1), 7, account(1), 30, NOON));
    budget.note(&posting(job(1), 8, account(1), 5, NOON));
    budget.over(job(1));
    assert_eq!(budget.reserve(job(3), account(1), nano(60), NOON).ok(), Some(nano(25)));
    assert_eq!(budget.reserve(job(4), account(2), nano(60), NOON).ok(), Some(nano(60)));
}

#[test]
fn a_used_up_day_is_refused_until_the_next() {
    let budget = budget(100, 1_000);
    assert_eq!(budget.reserve(job(1), account(2), nano(100), NOON).ok(), Some(nano(100)));
    budget.note(&posting(job(1), 7, account(2), 100, NOON));
    budget.over(job(1));
    let refused = budget.reserve(job(2), account(1), nano(1), NOON).unwrap_err();
    assert!(matches!(refused, JobError::SpendingCap { retry_after: None, .. }));
    assert!(refused.to_string().contains("00:00 UTC"), "{refused}");
    let tomorrow = NOON.after(Millis::from_secs(86_400));
    assert!(budget.reserve(job(3), account(1), nano(1), tomorrow).is_ok());
    // A clock that is set back does not open a spent day anew, nor count it twice.
    assert!(budget.reserve(job(4), account(1), nano(1), NOON).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_happens_the_caps_hold_also_across_kills(
        events in prop::collection::vec((0u8..5, 0u8..8, 1u8..3, 0u64..80), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = Store::in_memory().unwrap();
        let open = || Budget::open(caps(200, 90), &store, NOON).unwrap();
        let mut budget = open();
        // What the node would have paid: never more than what was set aside.
        let mut granted: BTreeMap<JobId, (Account, u64, u64)> = BTreeMap::new();
        let mut spent: BTreeMap<Account, u64> = BTreeMap::new();
        let mut fresh = 0u64;
        for (what, which, whose, amount) in events {
            match what {
                0 | 1 => {
                    fresh += 1;
                    let mut id = [0; 32];
                    id[..8].copy_from_slice(&fresh.to_be_bytes());
                    let id = JobId::from_bytes(id);
                    if let Ok(given) = budget.reserve(id, account(whose), nano(amount), NOON) {
                        granted.insert(id, (account(whose), given.as_nano(), 0));
                    }
                }
                2 => {
                    let nth = granted.keys().nth(usize::from(which)).copied();
                    let Some(id) = nth else { continue };
                    let (account, given, paid) = granted[&id];
                    let total = (paid + amount).min(given);
                    granted.insert(id, (account, given, total));
                    *spent.entry(account).or_default() += total - paid;
                    let line = posting(id, 7, account, total, NOON);
                    let record = Record::put(Table::Posting, line.key(), line.encode());
                    runtime.block_on(store.commit(vec![record])).unwrap();
                    budget.note(&line);
                }
                3 => {
                    let nth = granted.keys().nth(usize::from(which)).copied();
                    if let Some(id) = nth {
                        granted.remove(&id);
                        budget.over(id);
                    }
                }
                _ => {
                    granted.clear();
                    budget = open();
                }
            }
            prop_assert!(spent.values().sum::<u64>() <= 200);
            prop_assert!(spent.get(&account(1)).copied().unwrap_or(0) <= 90);
        }
    }
}
