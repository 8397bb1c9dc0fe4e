//! The roots that SEV-SNP certificates may end at: one for each family of processors.
//!
//! Owns: AMD's, pinned by family. Must not: take a root from a peer.

use cocoon_protocol::attest::SnpProduct;
use x509_cert::name::Name;

use crate::snp::certificate::SnpCertificate;

/// Roots, by family.
pub(crate) struct Roots(Vec<(SnpProduct, SnpCertificate)>);

/// AMD's root of each family; origin in `roots/amd/README.md`.
const fn amd(product: SnpProduct) -> &'static [u8] {
    match product {
        SnpProduct::Milan => include_bytes!("../../roots/amd/ark-milan.der"),
        SnpProduct::Genoa => include_bytes!("../../roots/amd/ark-genoa.der"),
        SnpProduct::Turin => include_bytes!("../../roots/amd/ark-turin.der"),
    }
}

impl Roots {
    /// AMD's.
    pub(crate) fn amd() -> Self {
        let products = [SnpProduct::Milan, SnpProduct::Genoa, SnpProduct::Turin];
        Self::of(products.map(|product| (product, amd(product))))
    }

    /// These certificates. One that is not a sound root is left out, and nothing ends there.
    pub(crate) fn of<'a>(roots: impl IntoIterator<Item = (SnpProduct, &'a [u8])>) -> Self {
        let sound = |der| {
            let root = SnpCertificate::read(der).ok()?;
            root.check_authority().ok()?;
            root.check_issuer(&root).ok()?;
            Some(root)
        };
        Self(
            roots
                .into_iter()
                .filter_map(|(product, der)| sound(der).map(|root| (product, root)))
                .collect(),
        )
    }

    /// The root of this name.
    pub(super) fn named(&self, name: &Name) -> Option<(SnpProduct, &SnpCertificate)> {
        self.0
            .iter()
            .find(|(_, root)| root.subject() == name)
            .map(|(product, root)| (*product, root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};

    /// Of the certificates in the crate `sev`, before their conversion from PEM.
    #[test]
    fn amd_s_roots_are_pinned_and_sound() {
        let hashes = [
            (SnpProduct::Milan, "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"),
            (SnpProduct::Genoa, "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"),
            (SnpProduct::Turin, "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"),
        ];
        let roots = Roots::amd();
        assert_eq!(roots.0.len(), hashes.len());
        for ((product, root), (expected, hash)) in roots.0.iter().zip(hashes) {
            assert_eq!(
                (*product, hex::encode(Sha256::digest(root.der()))),
                (expected, hash.to_owned())
            );
            assert!(root.subject().to_string().contains(&format!("CN=ARK-{product}")));
        }
    }

    #[test]
    fn a_root_that_did_not_sign_itself_or_may_not_sign_is_left_out() {
        let (ark, other) = (amd(SnpProduct::Milan), amd(SnpProduct::Genoa));
        let mut altered = ark.to_vec();
        *altered.last_mut().unwrap() ^= 1;
        let ask = include_bytes!("../../testdata/snp/ask-milan.der");
        let vcek = include_bytes!("../../testdata/snp/vcek_milan.der");
        for der in [&altered[..], ask, vcek, b"", &ark[..ark.len() - 1]] {
            assert!(Roots::of([(SnpProduct::Milan, der)]).0.is_empty());
        }
        assert_eq!(Roots::of([(SnpProduct::Milan, ark), (SnpProduct::Genoa, other)]).0.len(), 2);
    }
}
