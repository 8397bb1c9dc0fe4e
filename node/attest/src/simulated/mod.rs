//! A simulated TEE, for tests and demos. **NO SECURITY.**
//!
//! Owns: a public test PKI whose keys follow from a constant in this source, and an attester that
//! forges TDX quotes under it. Anybody can forge the same evidence; that is the point, for separate
//! processes must agree on the root without being told.
//! Must not: be reachable without the feature `dev-tee`, or be trusted by a policy that does not say
//! `trust = "dev"`. The root's subject says NOT A TEE.

mod attester;
mod der;
mod pki;

pub use attester::{SimulatedAttester, SimulatedGuest};
pub use pki::ROOT_COMMON_NAME;

use crate::tdx::Root;

/// The test root as the appraiser uses it.
pub(crate) fn root() -> Option<Root> {
    pki::shared().ok().map(|pki| Root::simulated(pki.root.clone(), ROOT_COMMON_NAME))
}

/// A dev policy in TOML that accepts exactly [`SimulatedGuest::default`]: for demos and tests.
pub fn dev_policy() -> String {
    let guest = SimulatedGuest::default();
    let [rtmr0, rtmr1, rtmr2, rtmr3] = guest.measurements.rtmr;
    format!(
        "version = 1\n\
         trust = \"dev\"                  # NO SECURITY: simulated TEEs pass\n\
         \n\
         [tdx]\n\
         tcb_status = [\"UpToDate\"]\n\
         min_tcb_eval_data_number = 1\n\
         max_collateral_age_h = 168\n\
         \n\
         [[tdx.image]]\n\
         name = \"simulated guest (NOT A TEE)\"\n\
         mrtd = \"{}\"\n\
         rtmr0 = [\"{rtmr0}\"]\n\
         rtmr1 = \"{rtmr1}\"\n\
         rtmr2 = \"{rtmr2}\"\n\
         rtmr3 = \"{rtmr3}\"\n",
        guest.measurements.mrtd
    )
}

#[cfg(test)]
mod tests {
    /// The file that the demo gives its consumer.
    #[test]
    fn the_committed_dev_policy_accepts_the_simulated_guest() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/dev-policy.toml");
        if std::env::var_os("COCOON_WRITE_GENERATED").is_some() {
            std::fs::write(path, super::dev_policy()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), super::dev_policy());
    }
}
