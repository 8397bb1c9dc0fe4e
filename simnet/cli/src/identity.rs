//! What a result is of: the program's version and a run's content-addressed name.
//!
//! Owns: both. Must not: depend on the machine or the day.

use simnet_scenario::{Scenario, Seed};

/// The version and the commit, where there is one.
pub(crate) const VERSION: &str = const {
    if env!("SIMNET_COMMIT").is_empty() {
        env!("CARGO_PKG_VERSION")
    } else {
        concat!(env!("CARGO_PKG_VERSION"), " (", env!("SIMNET_COMMIT"), ")")
    }
};

/// The commit that the program was built from, or its version outside git.
pub(crate) const COMMIT: &str = const {
    if env!("SIMNET_COMMIT").is_empty() { env!("CARGO_PKG_VERSION") } else { env!("SIMNET_COMMIT") }
};

/// A run's name: equal for equal scenario, seed and build, different for all others.
pub(crate) fn run_name(scenario: &Scenario, seed: Seed) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("cocoon simnet run v1");
    hasher.update(&scenario.digest());
    hasher.update(&seed.0.to_be_bytes());
    hasher.update(COMMIT.as_bytes());
    let hex = hasher.finalize().to_hex();
    format!("{}-{}-{}", scenario.name, seed.0, hex.as_str().get(..12).unwrap_or_default())
}
