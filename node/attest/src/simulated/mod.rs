//! Simulated TEEs, for tests and demos. **NO SECURITY.**
//!
//! Owns: public test PKIs, and attesters that forge TDX quotes and SEV-SNP reports under them. The keys
//! follow from a constant in this source, or lie in the repository. Anybody can
//! forge the same evidence; that is the point, for separate processes must agree on the root without
//! being told. Simulated GPUs beside them, under a root of their own.
//! Must not: be reachable without the feature `dev-tee`, or be trusted by a policy that does not say
//! `trust = "dev"`. The roots' subjects say NOT A TEE.

mod attester;
pub(crate) mod der;
mod gpu;
pub(crate) mod pki;
pub(crate) mod snp;

pub use attester::{SimulatedAttester, SimulatedGuest};
pub use gpu::{GPU_ROOT_COMMON_NAME, SimulatedGpu, SimulatedGpus};
pub use pki::ROOT_COMMON_NAME;
pub use snp::{SimulatedSnp, SimulatedSnpGuest};

use crate::appraiser::Anchors;
use crate::tdx;

/// The test roots as the appraiser uses them.
pub(crate) fn anchors() -> Option<Anchors> {
    Some(Anchors { tdx: root()?, snp: snp::pki::roots(), nvidia: gpu::root() })
}

/// The test root of GPUs.
pub(crate) fn gpu_root() -> Option<crate::nvidia::Root> {
    gpu::root()
}

fn root() -> Option<tdx::Root> {
    pki::shared().ok().map(|pki| tdx::Root::simulated(pki.root.clone(), ROOT_COMMON_NAME))
}

#[cfg(test)]
pub(crate) use gpu::{forge_chain, forge_report, resign_report};

/// A dev policy in TOML that accepts exactly [`SimulatedGuest::default`] and
/// [`SimulatedSnpGuest::default`], and GPUs as [`SimulatedGpu::new`] makes them: for demos and tests.
pub fn dev_policy() -> String {
    let guest = SimulatedGuest::default();
    let [rtmr0, rtmr1, rtmr2, rtmr3] = guest.measurements.rtmr;
    let snp = SimulatedSnpGuest::default();
    let level = snp.reported_tcb;
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
         rtmr3 = \"{rtmr3}\"\n\
         \n\
         [snp]\n\
         products = [\"Milan\"]\n\
         max_crl_age_d = 30\n\
         \n\
         [snp.min_tcb.Milan]\n\
         bl = {}\n\
         tee = {}\n\
         snp = {}\n\
         ucode = {}\n\
         \n\
         [[snp.image]]\n\
         name = \"simulated guest (NOT A TEE)\"\n\
         measurement = \"{}\"\n\
         \n\
         {}",
        guest.measurements.mrtd,
        level.boot_loader,
        level.tee,
        level.snp,
        level.microcode,
        snp.measurements.measurement,
        gpu_policy(&SimulatedGpu::new(0)),
    )
}

/// The rules `[gpu]` in TOML that accept GPUs in the state of `gpu`.
fn gpu_policy(gpu: &SimulatedGpu) -> String {
    let lines = gpu.measurements.iter().map(|(index, value)| format!("{index} = [\"{value}\"]\n"));
    format!(
        "[gpu]\n\
         arch = [\"GH100\"]\n\
         \n\
         [[gpu.golden]]                  # NOT A GPU\n\
         driver = \"{}\"\n\
         vbios = \"{}\"\n\
         \n\
         [gpu.golden.measurements]\n\
         {}",
        gpu.driver,
        gpu.vbios_version(),
        lines.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    /// The file that the demo gives its consumer.
    #[test]
    fn the_committed_dev_policy_accepts_the_simulated_guests() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/dev-policy.toml");
        if std::env::var_os("COCOON_WRITE_GENERATED").is_some() {
            std::fs::write(path, super::dev_policy()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), super::dev_policy());
    }
}
