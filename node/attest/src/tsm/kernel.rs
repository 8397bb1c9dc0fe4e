//! The five file operations that configfs-tsm is made of.
//!
//! Owns: the only touch of the file system on the way to a report.
//! Must not: know what an attribute means; `tsm` does. A test's kernel stands in here.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

/// What is asked of configfs.
pub(crate) trait Kernel: Send + Sync + fmt::Debug {
    /// Makes an entry; the kernel fills it with attributes before this returns.
    fn create(&self, entry: &Path) -> io::Result<()>;
    /// Removes an entry with its attributes.
    fn remove(&self, entry: &Path) -> io::Result<()>;
    /// Reads an attribute: at most `limit` bytes and one more.
    fn read(&self, attribute: &Path, limit: usize) -> io::Result<Vec<u8>>;
    /// Writes an attribute in one go.
    fn write(&self, attribute: &Path, bytes: &[u8]) -> io::Result<()>;
    /// The names in a folder.
    fn entries(&self, folder: &Path) -> io::Result<Vec<String>>;
}

/// The machine's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filesystem;

impl Kernel for Filesystem {
    fn create(&self, entry: &Path) -> io::Result<()> {
        std::fs::create_dir(entry)
    }

    fn remove(&self, entry: &Path) -> io::Result<()> {
        std::fs::remove_dir(entry)
    }

    fn read(&self, attribute: &Path, limit: usize) -> io::Result<Vec<u8>> {
        super::read_bounded(attribute, limit)
    }

    fn write(&self, attribute: &Path, bytes: &[u8]) -> io::Result<()> {
        // Never creates: an attribute that is missing is a kernel that cannot do what is asked.
        OpenOptions::new().write(true).open(attribute)?.write_all(bytes)
    }

    fn entries(&self, folder: &Path) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
        let names: io::Result<Vec<_>> = names.collect();
        Ok(names?.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }
}
