//! The parsers of the image's first process, which is a program and no library: its own files, compiled again.
//!
//! Owns: the seeds' files. Must not: hold a parser or a property; the files beside `main.rs` do.

#![allow(dead_code, reason = "only the parsers of these files are called")]

#[path = "../../src/dhcp.rs"]
mod dhcp;
#[path = "../../src/disk.rs"]
mod disk;
#[path = "../../src/fuzzing.rs"]
mod fuzzing;
#[path = "../../src/model.rs"]
mod model;
#[path = "../../src/operator.rs"]
mod operator;

use std::path::Path;

/// The folder for the seeds, which is also among those that the run reads.
const FOLDER_VARIABLE: &str = "COCOON_FUZZ_SEEDS";

/// Writes the seeds into the folder that the environment names, if any.
pub fn begin() {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else { return };
    for (number, seed) in fuzzing::seeds().iter().enumerate() {
        let path = Path::new(&folder).join(format!("seed-{number}"));
        std::fs::write(&path, seed).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// Gives the parsers one input; panics when something does not hold.
pub fn host_inputs(data: &[u8]) {
    fuzzing::host_inputs(data);
}

/// What the files expect of `main.rs`.
fn say(_: impl std::fmt::Display) {}

fn pause() {}
