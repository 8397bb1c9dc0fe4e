//! A devnet's books, as anybody reads them: every transaction of an account, over the ledger's own
//! HTTP interface.
//!
//! Owns: the sums. Must not: ask a node: what it says about its money is what is checked.

use serde_json::{Value, json};

use crate::gateway::request;

/// Transactions of one page.
const PAGE: usize = 100;

/// All that an account has received, sent and paid, in nanoTON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    /// What it holds now.
    pub(crate) balance: u64,
    /// What came in with messages.
    pub(crate) received: u64,
    /// What went out with messages.
    pub(crate) sent: u64,
    /// What validators took: for its transactions, and for carrying its messages.
    pub(crate) fees: u64,
    /// How many transactions that was.
    pub(crate) transactions: usize,
}

fn nano(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

fn call(ledger: u16, path: &str) -> Value {
    let mut answer = request(ledger, "GET", &format!("/api/v2/{path}"), &[], b"").json();
    assert_eq!(answer["ok"], true, "{answer}");
    answer["result"].take()
}

/// What a ledger's account holds, in nanoTON.
pub(crate) fn balance(ledger: u16, address: &str) -> u64 {
    nano(&call(ledger, &format!("getAddressBalance?address={address}")))
}

/// What a vault has set aside for providers, in nanoTON: the third figure of `get_vault`.
pub(crate) fn reserved(ledger: u16, vault: &str) -> u64 {
    let body = json!({ "address": vault, "method": "get_vault", "stack": [] }).to_string();
    let answer = request(ledger, "POST", "/api/v2/runGetMethod", &[], body.as_bytes()).json();
    let figure = answer["result"]["stack"][2][1].as_str();
    let figure = figure.and_then(|figure| u64::from_str_radix(figure.strip_prefix("0x")?, 16).ok());
    figure.unwrap_or_else(|| panic!("no vault: {answer}"))
}

impl Books {
    /// Adds up an account's history, which must explain its balance to the nanoTON.
    #[track_caller]
    pub(crate) fn of(ledger: u16, address: &str) -> Self {
        let mut books = Self { balance: balance(ledger, address), ..Self::default() };
        let mut before = String::new();
        loop {
            let path = format!("getTransactions?address={address}&limit={PAGE}{before}");
            let page = call(ledger, &path);
            let page = page.as_array().unwrap();
            page.iter().for_each(|transaction| books.add(transaction));
            let Some(oldest) = page.last().filter(|_| page.len() == PAGE) else { break };
            let id = &oldest["transaction_id"];
            let hash = id["hash"].as_str().unwrap().replace('+', "%2B").replace('/', "%2F");
            before =
                format!("&lt={}&hash={}", id["lt"].as_str().unwrap(), hash.replace('=', "%3D"));
        }
        let left = books.received - books.sent - books.fees;
        assert_eq!(books.balance, left, "the books of {address} do not balance: {books:?}");
        books
    }

    /// `fee` is all that the transaction cost its account, carrying its messages included, as
    /// toncenter has it.
    fn add(&mut self, transaction: &Value) {
        self.transactions += 1;
        self.fees += nano(&transaction["fee"]);
        if let Some(message) = transaction.get("in_msg") {
            self.received += nano(&message["value"]);
        }
        for message in transaction["out_msgs"].as_array().unwrap() {
            self.sent += nano(&message["value"]);
        }
    }
}
