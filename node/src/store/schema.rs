//! The version of the file's layout, checked before anything else is read.
//!
//! Owns: the version and the tables' creation. Must not: read a record.

use redb::{Database, Durability, ReadableDatabase as _, TableDefinition};

use super::error::OpenError;
use super::table::Table;

/// Version of the layout that this program writes. Raise it when a table or a record changes in a
/// way that an older program would misread, and migrate in [`prepare`].
pub(crate) const VERSION: u32 = 2;

/// Facts about the file itself, by name.
const META: TableDefinition<'static, &'static str, u32> = TableDefinition::new("meta");
/// Name of the version in [`META`].
const VERSION_KEY: &str = "schema";

/// Creates the tables of a new file; refuses a file of another program or a newer version.
pub(crate) fn prepare(database: &Database) -> Result<(), OpenError> {
    let tables = {
        let snapshot = database.begin_read().map_err(OpenError::from_redb)?;
        snapshot.list_tables().map_err(OpenError::from_redb)?.count()
    };
    // The version and all tables are made in one transaction, so a file without any was new.
    if tables > 0 && check(database)? == VERSION {
        return Ok(());
    }
    // What version 1 has stays as it is; the log of receipts and the accounts begin with version 2.
    create(database).map_err(OpenError::from_redb)
}

/// Makes the tables that are missing, and writes the version.
fn create(database: &Database) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    for table in Table::ALL {
        drop(transaction.open_table(table.definition())?);
    }
    transaction.open_table(META)?.insert(VERSION_KEY, VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// The file's version, if it is one that this program reads.
fn check(database: &Database) -> Result<u32, OpenError> {
    let snapshot = database.begin_read().map_err(OpenError::from_redb)?;
    let meta = snapshot.open_table(META).map_err(|_| OpenError::Foreign)?;
    let found = meta.get(VERSION_KEY).map_err(OpenError::from_redb)?;
    match found.map(|found| found.value()) {
        None => Err(OpenError::Foreign),
        Some(found) if found > VERSION => Err(OpenError::Newer { found, known: VERSION }),
        // Zero was never written.
        Some(0) => Err(OpenError::Foreign),
        Some(found) => Ok(found),
    }
}

#[cfg(test)]
pub(crate) fn write_version(database: &Database, version: u32) {
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(VERSION_KEY, version).unwrap();
    transaction.commit().unwrap();
}
