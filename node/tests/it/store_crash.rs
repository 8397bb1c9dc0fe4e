//! The store against `kill -9`: this test binary runs itself as a writer and kills it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use cocoon_node::store::{Record, Store, Table};

/// Tells the child which store to write.
const STORE: &str = "STORE_OF_CRASH_TEST";
/// Records of one batch, each in another table.
const TABLES: [Table; 3] = [Table::Payer, Table::Receipt, Table::Interrupted];

fn number_after(highest: Option<u64>) -> u64 {
    highest.map_or(0, |number| number + 1)
}

/// The highest batch in the store, after checking that none is half there.
fn highest_batch(store: &Store) -> Option<u64> {
    let counts = TABLES.map(|table| store.count(table).unwrap());
    assert!(counts.iter().all(|count| *count == counts[0]), "half a batch: {counts:?}");
    for table in TABLES {
        let entries = store.scan(table, None, usize::MAX).unwrap();
        for (number, (key, value)) in (0u64..).zip(entries) {
            assert_eq!((key.as_slice(), value.len()), (&number.to_be_bytes()[..], 200));
        }
    }
    counts[0].checked_sub(1)
}

/// The child: commits numbered batches for ever, and prints each number once it is durable.
/// Several are submitted at a time, so that group commits are among what is interrupted.
#[test]
#[ignore = "run by the test below, in a process of its own that is killed"]
fn writer() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let store = Store::open(Path::new(&path)).unwrap();
    let mut next = number_after(highest_batch(&store));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut stdout = std::io::stdout().lock();
    loop {
        let acknowledged = runtime.block_on(async {
            let mut waiting = Vec::new();
            for number in next..next + 3 {
                let record = |table| {
                    Record::put(
                        table,
                        number.to_be_bytes().to_vec(),
                        vec![number.to_be_bytes()[7]; 200],
                    )
                };
                waiting.push((number, store.submit(TABLES.map(record).to_vec()).await.unwrap()));
            }
            for (number, durable) in waiting {
                durable.await.unwrap();
                writeln!(stdout, "durable {number}").unwrap();
            }
            stdout.flush()
        });
        acknowledged.unwrap();
        next += 3;
    }
}

/// Starts a writer, kills it after `acknowledgements`, and returns the last number it printed.
fn write_and_kill(path: &Path, acknowledgements: usize) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store_crash::writer", "--ignored", "--nocapture"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut numbers = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("durable ").and_then(|number| number.parse().ok()));
    let mut last = None;
    for number in numbers.by_ref().take(acknowledgements) {
        last = Some(number);
    }
    child.kill().unwrap();
    // What it had printed before it died counts too.
    last = numbers.last().or(last);
    child.wait().unwrap();
    last
}

#[test]
fn after_any_kill_every_acknowledged_batch_is_there_and_none_is_half_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let mut known = None;
    // From a kill before the first acknowledgement on; the kernel's timing does the rest.
    for acknowledgements in [0, 1, 2, 5, 11, 0, 23, 3, 40, 1] {
        let acknowledged = write_and_kill(&path, acknowledgements);
        let store = Store::open(&path).unwrap();
        let found = highest_batch(&store);
        assert!(found >= acknowledged.max(known), "lost: {acknowledged:?}, {known:?}, {found:?}");
        known = found;
    }
    assert!(known.is_some_and(|number| number >= 80));
}
