//! Why a policy is not applied.
//!
//! Owns: the reasons, each in words that the policy's author can act on.
//! Must not: repair anything.

use crate::attest::snp::{self, SnpProduct};
use crate::attest::tdx;

/// Why a policy was refused. It is never repaired: a policy that is not understood is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A maintainer twice, or without a source.
    #[error("each entry of `advisories` needs a `maintainer` of its own and a `source`")]
    BadSubscription,
    /// Another version of the form.
    #[error("policy version {found} is not understood; this node knows version 1")]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// Revoked platforms are never trusted.
    #[error("`tcb_status` lists Revoked; revoked platforms are never trusted: remove it")]
    RevokedAllowed,
    /// No status at all would deny everything without saying so.
    #[error("`tcb_status` is empty; list at least UpToDate, or leave out [tdx] to deny TDX")]
    NoTcbStatus,
    /// An image without a machine shape.
    #[error("image `{image}` lists no rtmr0; list one value per machine shape")]
    NoMachineShape {
        /// The image's name.
        image: String,
    },
    /// Zero means that nothing was measured, and any guest on such a platform would match.
    #[error(
        "image `{image}` has a {register} of zeros, which pins nothing; use the measured value"
    )]
    ZeroRegister {
        /// The image's name.
        image: String,
        /// Which register.
        register: &'static str,
    },
    /// No product at all would deny everything without saying so.
    #[error("`products` is empty; list at least one, or leave out [snp] to deny SEV-SNP")]
    NoProduct,
    /// A product without a floor would accept firmware with published holes.
    #[error(
        "`products` lists {product}, but there is no [snp.min_tcb.{product}]; add AMD's minimum"
    )]
    NoMinimumTcb {
        /// Which product.
        product: SnpProduct,
    },
    /// A rule for a product that the policy does not accept: one of the two is a mistake.
    #[error("[snp.{section}] names {product}, which `products` does not list")]
    UnlistedProduct {
        /// In which table.
        section: &'static str,
        /// Which product.
        product: SnpProduct,
    },
    /// FMC is a component of Turin's TCB only.
    #[error("[snp.{section}.{product}] sets fmc, which {product} does not have; remove it")]
    NoFmc {
        /// In which table.
        section: &'static str,
        /// Which product.
        product: SnpProduct,
    },
    /// A revocation list that old says nothing about today.
    #[error("`max_crl_age_d` must be between 1 and {} days", snp::LONGEST_CRL_AGE.get() / 86_400_000)]
    CrlAge,
    /// Guests run at one of four levels.
    #[error("`max_vmpl` must be between 0 and 3")]
    BadVmpl,
    /// `vlek = true` alone has no certificate to end at, and a certificate alone has no use.
    #[error("`vlek = true` and [snp.asvk] need each other: AMD's ASVK of each product, in PEM")]
    VlekWithoutAsvk,
    /// Not the PEM text of one certificate.
    #[error("[snp.asvk] {product} is not the PEM text of one certificate")]
    BadAsvk {
        /// Which product.
        product: SnpProduct,
    },
    /// A chip identity of a wrong length.
    #[error("`allowed_chip_id` must list chip ids of 128 hexadecimal digits, or 16 for Turin")]
    BadChipId,
    /// Two images by one name.
    #[error("image `{image}` is listed twice; give each entry a name of its own")]
    DuplicateImage {
        /// The name.
        image: String,
    },
    /// A known good state of a GPU that cannot mean what its author thinks.
    #[error("the golden GPU state of driver `{driver}` with VBIOS `{vbios}` {reason}")]
    GpuGolden {
        /// The entry's driver.
        driver: String,
        /// The entry's VBIOS.
        vbios: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More than a policy may hold.
    #[error("the policy lists more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// A platform identity that is no 16 bytes.
    #[error("`allowed_ppid` must list platform ids of 32 hexadecimal digits")]
    BadPpid,
    /// Collateral that old says nothing about today.
    #[error("`max_collateral_age_h` must be between 1 and {} hours", tdx::LONGEST_COLLATERAL_AGE.get().div_ceil(3_600_000))]
    CollateralAge,
}
