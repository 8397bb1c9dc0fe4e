//! The public test PKI for SEV-SNP. **NO SECURITY: every private key lies in the repository.**
//!
//! Owns: the committed certificates and keys, and revocation lists made with them.
//! Must not: look like anything else; every subject says NOT A TEE.

use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, RSA_PSS_SHA384, RsaKeyPair,
};
use cocoon_protocol::attest::SnpProduct;
use cocoon_protocol::units::Timestamp;
use time::OffsetDateTime;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

use crate::attester::QuoteError;
use crate::simulated::der;
use crate::snp::Roots;

pub(super) const ARK: &[u8] = include_bytes!("../../../testdata/snp-dev/ark.der");
pub(super) const ASK: &[u8] = include_bytes!("../../../testdata/snp-dev/ask.der");
pub(super) const VCEK: &[u8] = include_bytes!("../../../testdata/snp-dev/vcek.der");
const ARK_KEY: &[u8] = include_bytes!("../../../testdata/snp-dev/PUBLIC-TEST-KEY-ark.p8");
#[cfg(test)]
const ASK_KEY: &[u8] = include_bytes!("../../../testdata/snp-dev/PUBLIC-TEST-KEY-ask.p8");
const VCEK_KEY: &[u8] = include_bytes!("../../../testdata/snp-dev/PUBLIC-TEST-KEY-vcek.p8");

/// The keys that the whole world knows.
pub(crate) struct Keys {
    pub(crate) ark: RsaKeyPair,
    /// Nothing is issued but by the tests.
    #[cfg(test)]
    pub(crate) ask: RsaKeyPair,
    pub(crate) vcek: EcdsaKeyPair,
    /// Name of the root, and the algorithm that it signs with, DER.
    root_name: Vec<u8>,
    algorithm: Vec<u8>,
}

/// The keys of this process, which are everybody's.
pub(crate) fn keys() -> Result<&'static Keys, QuoteError> {
    static KEYS: OnceLock<Option<Keys>> = OnceLock::new();
    KEYS.get_or_init(Keys::read).as_ref().ok_or(QuoteError::Simulation)
}

/// The test root, as if it were Milan's.
pub(crate) fn roots() -> Roots {
    Roots::of([(SnpProduct::Milan, ARK)])
}

impl Keys {
    fn read() -> Option<Self> {
        let root = Certificate::from_der(ARK).ok()?;
        let body = root.tbs_certificate();
        Some(Self {
            ark: RsaKeyPair::from_pkcs8(ARK_KEY).ok()?,
            #[cfg(test)]
            ask: RsaKeyPair::from_pkcs8(ASK_KEY).ok()?,
            vcek: EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, VCEK_KEY).ok()?,
            root_name: body.subject().to_der().ok()?,
            algorithm: body.signature().to_der().ok()?,
        })
    }

    /// The root's revocation list of this time, which names the certificates of these serial numbers.
    pub(crate) fn revocation_list(
        &self,
        issued: Timestamp,
        ends: Timestamp,
        revoked: &[Vec<u8>],
    ) -> Result<Vec<u8>, QuoteError> {
        let mut body = vec![
            der::element(der::INTEGER, &[1]),
            self.algorithm.clone(),
            self.root_name.clone(),
            date(issued)?,
            date(ends)?,
        ];
        if !revoked.is_empty() {
            let entries: Result<Vec<_>, QuoteError> = revoked
                .iter()
                .map(|serial| {
                    let serial = der::element(der::INTEGER, serial);
                    Ok(der::sequence(&[serial, date(issued)?]))
                })
                .collect();
            body.push(der::sequence(&entries?));
        }
        // cRLNumber: RFC 5280 wants one in every list of version 2.
        let number = der::octets(&der::element(der::INTEGER, &[1]));
        let number = der::sequence(&[der::object_identifier("2.5.29.20"), number]);
        body.push(der::element(der::EXPLICIT_0, &der::sequence(&[number])));
        self.signed(&self.ark, &body)
    }

    /// `parts` as a DER sequence, signed as AMD signs certificates and lists.
    pub(crate) fn signed(
        &self,
        key: &RsaKeyPair,
        parts: &[Vec<u8>],
    ) -> Result<Vec<u8>, QuoteError> {
        Self::signed_as(&self.algorithm, key, parts)
    }

    /// The same, under whatever name of an algorithm.
    pub(crate) fn signed_as(
        algorithm: &[u8],
        key: &RsaKeyPair,
        parts: &[Vec<u8>],
    ) -> Result<Vec<u8>, QuoteError> {
        let body = der::sequence(parts);
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), &body, &mut signature)
            .map_err(|_| QuoteError::Simulation)?;
        // No unused bits.
        signature.insert(0, 0);
        let signature = der::element(der::BIT_STRING, &signature);
        Ok(der::sequence(&[body, algorithm.to_vec(), signature]))
    }

    #[cfg(test)]
    pub(crate) fn algorithm(&self) -> Vec<u8> {
        self.algorithm.clone()
    }
}

/// A time as RFC 5280 writes it up to 2049.
pub(crate) fn date(at: Timestamp) -> Result<Vec<u8>, QuoteError> {
    let seconds = i64::try_from(at.as_unix_secs()).map_err(|_| QuoteError::Simulation)?;
    let at = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| QuoteError::Simulation)?;
    if !(1950..2050).contains(&at.year()) {
        return Err(QuoteError::Simulation);
    }
    let text = format!(
        "{:02}{:02}{:02}{:02}{:02}{:02}Z",
        at.year() % 100,
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    Ok(der::element(der::UTC_TIME, text.as_bytes()))
}
