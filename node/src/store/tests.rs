//! Durability, order, versions, damage, and a plug that is pulled at every write.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

fn put(table: Table, key: &str, value: &str) -> Record {
    Record::put(table, key.into(), value.into())
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    for round in 0..3u8 {
        let store = Store::open(&path).unwrap();
        assert_eq!(store.count(Table::Receipt).unwrap(), u64::from(round));
        let batch = vec![
            Record::put(Table::Receipt, vec![round], vec![round; 3]),
            put(Table::Payer, "a", "b"),
        ];
        store.commit_blocking(batch).unwrap();
    }
    let store = Store::open(&path).unwrap();
    assert_eq!(store.read(Table::Receipt, &[1]).unwrap(), Some(vec![1; 3]));
    assert_eq!(store.read(Table::Payee, b"a").unwrap(), None);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, FILE_MODE);
}

#[test]
fn a_later_record_of_a_key_wins_and_a_removal_removes() {
    let store = Store::in_memory().unwrap();
    let batch = vec![
        put(Table::Payer, "a", "1"),
        put(Table::Payer, "a", "2"),
        put(Table::Payer, "b", "1"),
        Record::remove(Table::Payer, b"b".to_vec()),
        Record::remove(Table::Payer, b"never there".to_vec()),
    ];
    store.commit_blocking(batch).unwrap();
    assert_eq!(store.scan(Table::Payer, None, 9).unwrap(), [(b"a".to_vec(), b"2".to_vec())]);
}

#[test]
fn a_scan_goes_on_where_the_last_one_ended() {
    let store = Store::in_memory().unwrap();
    let batch = (0..10u8).map(|n| Record::put(Table::Interrupted, vec![n], vec![n])).collect();
    store.commit_blocking(batch).unwrap();
    let first = store.scan(Table::Interrupted, None, 4).unwrap();
    let rest = store.scan(Table::Interrupted, Some(&first[3].0), 100).unwrap();
    let keys: Vec<u8> = first.iter().chain(&rest).map(|(key, _)| key[0]).collect();
    assert_eq!(keys, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_record_beyond_its_bound_is_refused_and_the_store_goes_on() {
    let store = Store::in_memory().unwrap();
    let wide = Record::put(Table::Payer, vec![0; KEY_BYTES + 1], vec![]);
    let long = Record::put(Table::Payer, vec![0], vec![0; VALUE_BYTES + 1]);
    for record in [wide, long] {
        let error = store.commit_blocking(vec![record]).unwrap_err();
        assert!(matches!(error, CommitError::RecordTooLarge { table: Table::Payer }));
    }
    let many = vec![put(Table::Payer, "a", "b"); BATCH_RECORDS + 1];
    assert!(matches!(store.commit_blocking(many), Err(CommitError::TooManyRecords { .. })));
    store.commit_blocking(vec![put(Table::Payer, "a", "b")]).unwrap();
}

#[tokio::test]
async fn batches_become_durable_in_the_order_of_their_submission() {
    let store = Store::in_memory().unwrap();
    let mut waiting = Vec::new();
    for n in 0..500u32 {
        let record = Record::put(Table::Payer, b"key".to_vec(), n.to_be_bytes().to_vec());
        waiting.push(store.submit(vec![record]).await.unwrap());
    }
    for (n, durable) in (0u32..).zip(waiting) {
        durable.await.unwrap();
        let value = store.read(Table::Payer, b"key").unwrap().unwrap();
        assert!(u32::from_be_bytes(value.try_into().unwrap()) >= n);
    }
}

#[test]
fn a_newer_version_and_a_foreign_database_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    drop(Store::open(&path).unwrap());
    schema::write_version(&Database::open(&path).unwrap(), schema::VERSION + 1);
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 3, known: 2 }), "{error:?}");

    let foreign = folder.path().join("foreign.redb");
    let definition = redb::TableDefinition::<u64, u64>::new("theirs");
    let transaction_of = |database: &Database| {
        let transaction = database.begin_write().unwrap();
        transaction.open_table(definition).unwrap();
        transaction.commit().unwrap();
    };
    transaction_of(&Database::create(&foreign).unwrap());
    let error = Store::open(&foreign).unwrap_err();
    assert!(matches!(error, OpenError::Foreign), "{error:?}");
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    for bytes in [b"short".to_vec(), vec![0; 8_192], b"#!/bin/sh\n".repeat(2_000)] {
        std::fs::write(&path, &bytes).unwrap();
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::Damaged(_)), "{error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

/// Storage whose writes are lost with the power unless a sync came after them. The write at which
/// the power fails is cut short; of the unsynced writes before it, some had reached the disk.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<DiskState>);

#[derive(Debug, Default)]
struct DiskState {
    bytes: Mutex<Image>,
    /// Operations until the power fails; zero is never reached by counting down.
    operations_left: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct Image {
    seen: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    fn with_power_for(image: Vec<u8>, operations: u64) -> Self {
        let image = Image { seen: image.clone(), synced: image, unsynced: vec![] };
        let state = DiskState { bytes: Mutex::new(image), operations_left: operations.into() };
        Self(Arc::new(state))
    }

    /// What is on the platter after the power failed: synced bytes, and those unsynced writes
    /// that `survives` picks.
    fn after_power_loss(&self, survives: u64) -> Vec<u8> {
        let image = self.0.bytes.lock().unwrap().clone();
        let mut bytes = image.synced;
        for (index, (offset, data)) in image.unsynced.into_iter().enumerate() {
            if survives.rotate_right(u32::try_from(index % 64).unwrap()) & 1 == 1 {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[offset..end].copy_from_slice(&data);
            }
        }
        bytes
    }

    fn spend(&self) -> std::io::Result<()> {
        let spent = |left: u64| left.checked_sub(1);
        match self.0.operations_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spent) {
            Ok(_) => Ok(()),
            Err(_) => Err(std::io::Error::other("the power failed")),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.bytes.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let image = self.0.bytes.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&image.seen[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.spend()?;
        // A file system journals a length at once or not at all; at once is the harder case.
        let mut image = self.0.bytes.lock().unwrap();
        let len = usize::try_from(len).unwrap();
        image.seen.resize(len, 0);
        image.synced.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.spend()?;
        let mut image = self.0.bytes.lock().unwrap();
        image.synced = image.seen.clone();
        image.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let powered = self.spend();
        let mut image = self.0.bytes.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        // The write during which the power fails reaches the disk in part.
        let written = if powered.is_ok() { data.len() } else { data.len() / 2 };
        image.unsynced.push((offset, data[..written].to_vec()));
        image.seen[offset..offset + written].copy_from_slice(&data[..written]);
        powered
    }
}

/// Commits numbered batches of two records until the power fails; how many were acknowledged.
fn write_until_power_fails(disk: &Disk, from: u32) -> u32 {
    let Ok(store) = Store::on(disk.clone()) else {
        return from;
    };
    for n in from..from + 40 {
        let number = n.to_be_bytes().to_vec();
        let batch = vec![
            Record::put(Table::Payer, b"latest".to_vec(), number.clone()),
            Record::put(Table::Receipt, number, vec![7; 300]),
        ];
        if store.commit_blocking(batch).is_err() {
            return n;
        }
    }
    from + 40
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn after_any_power_loss_every_acknowledged_batch_is_there_and_none_is_half_there(
        losses in prop::collection::vec((1u64..400, any::<u64>()), 1..4),
    ) {
        let disk = Disk::with_power_for(vec![], u64::MAX);
        drop(Store::on(disk.clone()).unwrap());
        let mut image = disk.after_power_loss(u64::MAX);
        let mut acknowledged = 0;
        for (operations, survives) in losses {
            let disk = Disk::with_power_for(image, operations);
            acknowledged = write_until_power_fails(&disk, acknowledged);
            image = disk.after_power_loss(survives);

            let disk = Disk::with_power_for(image.clone(), u64::MAX);
            let store = Store::on(disk).unwrap();
            let receipts = u32::try_from(store.count(Table::Receipt).unwrap()).unwrap();
            // One batch more than was acknowledged may be there: the one in flight.
            prop_assert!(receipts == acknowledged || receipts == acknowledged + 1);
            let latest = store.read(Table::Payer, b"latest").unwrap();
            let latest = latest.map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()));
            prop_assert_eq!(latest, receipts.checked_sub(1));
            acknowledged = receipts;
        }
    }

    #[test]
    fn no_file_panics_the_store(bytes in prop::collection::vec(any::<u8>(), 1..9_000)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        std::fs::write(&path, &bytes).unwrap();
        prop_assert!(Store::open(&path).is_err());
    }
}
