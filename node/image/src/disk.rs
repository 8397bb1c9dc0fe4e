//! The host's disks, which are told apart by their serial numbers.
//!
//! Owns: finding one. Must not: read it.

use std::path::{Path, PathBuf};

use super::pause;

/// Where the kernel lists them.
pub(crate) const DISKS: &str = "/sys/block";

/// The disk with this serial number (`-device virtio-blk-pci,serial=…`), looked for so many times,
/// ten times a second.
pub(crate) fn find(disks: &Path, serial: &str, looks: u32) -> Option<PathBuf> {
    for look in 0..looks {
        if look > 0 {
            pause();
        }
        for entry in std::fs::read_dir(disks).into_iter().flatten().flatten() {
            let found = std::fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
            if found.trim_end() == serial {
                return Some(Path::new("/dev").join(entry.file_name()));
            }
        }
    }
    None
}
