//! The kernel modules that the image brings along.
//!
//! Owns: loading them in the order of the list. Must not: load anything that is not in the initrd.

use std::fs::File;
use std::path::Path;

use rustix::io::Errno;
use rustix::system::finit_module;

use super::say;

/// Where the modules lie, as the kernel's package has them.
const FOLDER: &str = "/lib/modules";
/// Their names in order, one a line.
const LIST: &str = "/lib/modules/list";
/// `MODULE_INIT_COMPRESSED_FILE`: the kernel decompresses the file itself.
const COMPRESSED: i32 = 4;

/// Loads them. One that fails is named, and what needs it fails with its own words: `tdx_guest`
/// never loads on a machine of AMD's.
pub(crate) fn load() {
    let list = std::fs::read_to_string(LIST).unwrap_or_default();
    for name in list.lines().filter(|line| !line.is_empty()) {
        let path = Path::new(FOLDER).join(name);
        let loaded = File::open(&path).and_then(|file| {
            let flags = if name.ends_with(".ko") { 0 } else { COMPRESSED };
            Ok(finit_module(file, c"", flags)?)
        });
        match loaded {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
                say(format_args!("{name}: this machine has no such device"));
            }
            Err(error) => say(format_args!("{name}: {error}")),
        }
    }
}
