//! What a fuzzer calls and what the tests replay: the parsers of what ledger servers answer.
//!
//! Owns: what must hold for any answer, and the answers that a run starts from.
//! Must not: parse anything itself, or be in a build that serves anybody.
//!
//! Bags of cells and the structures of TON's chain are read by the crates of `tycho`; what is asked
//! here of them as well is that nothing in an answer makes them panic.

use std::sync::LazyLock;

use cocoon_protocol::identity::{Network, TonAddress};
use tycho_types::boc::Boc;
use tycho_types::cell::Cell;
use tycho_types::models::{BlockId, Transaction};

use crate::get_method::read_stack;
use crate::liteserver::api::{AccountAnswer, Answer, Asked, Envelope, Query};
use crate::liteserver::{GlobalConfig, proof};
use crate::message::Message;
use crate::toncenter;
use crate::transaction::TransactionId;

/// The answers of one chain's liteserver about one account; a test makes them again.
const ACCOUNT: &[u8] = include_bytes!("../testdata/liteserver/account.tl");
const TRANSACTIONS: &[u8] = include_bytes!("../testdata/liteserver/transactions.tl");
const CONFIG: &[u8] = include_bytes!("../testdata/liteserver/config.tl");
const HEADER: &[u8] = include_bytes!("../testdata/liteserver/header.tl");
/// Most transactions in one answer, as the client asks for them.
const PAGE: usize = 16;

/// One parser under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its file in `fuzz_targets` and of its folder in `corpus`.
    pub name: &'static str,
    /// Gives it one input; panics when something does not hold.
    pub run: fn(&[u8]),
    /// Inputs that are understood, from the fixtures.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] =
    &[Target { name: "ledger_answers", run: ledger_answers, seeds: answers }];

/// What is believed before any answer: a block, and which transaction of which account is the newest.
#[derive(Debug)]
struct Believed {
    block: BlockId,
    address: TonAddress,
    newest: TransactionId,
}

static BELIEVED: LazyLock<Option<Believed>> = LazyLock::new(|| {
    let Ok(Answer::Transactions { transactions, .. }) = Answer::decode(TRANSACTIONS) else {
        return None;
    };
    let Ok(Answer::AccountState(AccountAnswer { block, .. })) = Answer::decode(ACCOUNT) else {
        return None;
    };
    let cell = Boc::decode_pair(&transactions).map(|(newest, _)| newest).ok()?;
    let transaction = cell.parse::<Transaction>().ok()?;
    let address = TonAddress { workchain: 0, hash: transaction.account.0 };
    let newest = TransactionId { lt: transaction.lt, hash: cell.repr_hash().0 };
    Some(Believed { block, address, newest })
});

/// What a proved answer says, so that a forged one can be held against the chain's own.
#[derive(Debug, PartialEq, Eq)]
enum Proved {
    Account(Option<(Cell, TransactionId)>, u32),
    Config(Cell),
    Header(proof::ProvedBlock),
}

fn prove(believed: &Believed, answer: &Answer) -> Option<Proved> {
    let (block, network) = (&believed.block, Network::Devnet);
    if let Answer::AccountState(answer) = answer {
        let proved = proof::account(answer, block, believed.address, network).ok()?;
        let account = proved.account.map(|account| {
            let last = TransactionId { lt: account.last_trans_lt, hash: account.last_trans_hash.0 };
            (account.account.inner().clone(), last)
        });
        return Some(Proved::Account(account, proved.time));
    }
    if let Answer::Config { state_proof, config_proof, .. } = answer {
        let cell = proof::config(state_proof, config_proof, block, network).ok()?;
        return Some(Proved::Config(cell));
    }
    if let Answer::BlockHeader { proof, .. } = answer {
        return proof::header(proof, block, network).ok().map(Proved::Header);
    }
    None
}

/// An answer of a liteserver, whichever it is to. What passes says what the chain says.
fn judge(answer: &Answer) {
    static GENUINE: LazyLock<Vec<Proved>> = LazyLock::new(|| {
        let answers = [ACCOUNT, CONFIG, HEADER].into_iter();
        let answers = answers.filter_map(|answer| Answer::decode(answer).ok());
        let believed = BELIEVED.as_ref();
        answers.filter_map(|answer| prove(believed?, &answer)).collect()
    });
    let Some(believed) = BELIEVED.as_ref() else { return };
    if let Some(proved) = prove(believed, answer) {
        assert!(GENUINE.contains(&proved), "a forged answer passed: {proved:?}");
    }
    if let Answer::Transactions { transactions, .. } = answer {
        let (address, newest) = (believed.address, believed.newest);
        if let Ok(cells) = proof::transactions(transactions, address, newest, PAGE) {
            let first = cells.first().map(|cell| cell.repr_hash().0);
            assert_eq!(first, Some(newest.hash), "a forged history passed");
        }
    }
}

/// What comes from ledger servers, from clients of the embedded one, and from the published file of
/// liteservers: any input is read as each of them.
pub fn ledger_answers(data: &[u8]) {
    if let Ok(envelope) = Envelope::decode(data) {
        assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope), "it changed on the way");
    }
    if let Ok(Asked { query, .. }) = Asked::decode(data) {
        if let Query::RunMethod { stack, .. } = &query {
            let _ = read_stack(stack);
        }
        if let Query::Send(message) = &query {
            let _ = Message::from_boc(message);
        }
        let again = Asked { wait: None, query };
        assert_eq!(Asked::decode(&again.query.encode()), Ok(again), "it changed on the way");
    }
    if let Ok(answer) = Answer::decode(data) {
        judge(&answer);
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer), "it changed on the way");
    }
    toncenter::read_any(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = GlobalConfig::read(text, Network::Devnet);
        let _ = crate::address::parse(text, Network::Devnet);
    }
}

fn answers() -> Vec<Vec<u8>> {
    let envelope = Envelope::Answer { id: [1; 32], answer: HEADER.to_vec() }.encode();
    let asked = Query::MasterchainInfo.encode();
    let account = r#"{"ok":true,"result":{"balance":"5","code":"","data":"","state":"active",
        "last_transaction_id":{"lt":"7","hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},"sync_utime":8}}"#;
    let refused = r#"{"ok":false,"error":"not accepted: exitcode=133, steps=22","code":500}"#;
    let file = r#"{"liteservers":[{"ip":2130706433,"port":4,"id":{"key":"O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik="}}]}"#;
    [ACCOUNT, TRANSACTIONS, CONFIG, HEADER, &envelope, &asked]
        .into_iter()
        .chain([account, refused, file].map(str::as_bytes))
        .map(<[u8]>::to_vec)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_understood() {
        let believed = BELIEVED.as_ref().unwrap();
        for answer in [ACCOUNT, CONFIG, HEADER] {
            assert!(prove(believed, &Answer::decode(answer).unwrap()).is_some());
        }
        let Answer::Transactions { transactions, .. } = Answer::decode(TRANSACTIONS).unwrap()
        else {
            panic!("no transactions")
        };
        let (address, newest) = (believed.address, believed.newest);
        let found = proof::transactions(&transactions, address, newest, PAGE).unwrap();
        assert_eq!(found.len(), 2);
        assert!(
            GlobalConfig::read(std::str::from_utf8(&answers()[8]).unwrap(), Network::Devnet)
                .is_ok()
        );
    }

    #[test]
    fn every_input_of_the_corpus_and_every_altered_seed_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/ledger_answers");
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            ledger_answers(&std::fs::read(entry.unwrap().path()).unwrap());
        }
        for seed in answers() {
            ledger_answers(&seed);
            for at in (0..seed.len()).step_by((seed.len() / 400).max(1)) {
                ledger_answers(&seed[..at]);
                let mut altered = seed.clone();
                altered[at] ^= 0x41;
                ledger_answers(&altered);
            }
        }
    }
}
