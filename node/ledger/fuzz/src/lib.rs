//! What every fuzz target does before its first input: it lays the seeds where the run looks for them.
//!
//! Owns: the seeds' files. Must not: make an input; `cocoon_ledger::fuzzing` does.

use std::path::Path;

/// The folder for a target's seeds, which is also among those that the run reads.
const FOLDER_VARIABLE: &str = "COCOON_FUZZ_SEEDS";

/// Writes the seeds of the target `name` into the folder that the environment names, if any.
pub fn begin(name: &str) {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else { return };
    for target in cocoon_ledger::fuzzing::TARGETS.iter().filter(|target| target.name == name) {
        for (number, seed) in (target.seeds)().iter().enumerate() {
            let path = Path::new(&folder).join(format!("seed-{number}"));
            std::fs::write(&path, seed).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}
