//! Endorsements from the vendors: what a consumer needs beside a quote, fetched by the provider.
//!
//! Owns: which documents belong to which evidence, their form and bounds, and when they are fetched
//! again. Must not: trust them. Nothing here is verified beyond its form; consumers verify it, and a
//! lying service costs this provider its sessions and nobody else anything.

mod amd;
mod cache;
mod certificate_table;
mod http;
mod intel;
mod keeper;
mod pem;
mod schedule;
#[cfg(test)]
pub(crate) mod tests;

use bytes::Bytes;
use cocoon_protocol::attest::Evidence;
use cocoon_protocol::limits;
use cocoon_protocol::units::{Millis, Timestamp};

use crate::hardware::RawEvidence;

pub use amd::AMD_KDS;
pub use cache::CacheError;
pub use http::{Http, HttpAnswer, HttpError, HttpFuture};
pub use intel::{INTEL_PCS, INTEL_ROOT_CRL};
pub use keeper::{Keeper, KeeperError, KeeperOptions, Origin, Refreshed};

/// Where endorsements come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Intel's provisioning certification service or a cache of it (PCCS): the part of its URLs before
    /// `/sgx/certification/v4` and `/tdx/certification/v4`.
    pub pcs: String,
    /// AMD's key distribution service or a cache of it: the part before `/vcek/v1`.
    pub kds: String,
}

impl Default for Sources {
    fn default() -> Self {
        Self { pcs: INTEL_PCS.to_owned(), kds: AMD_KDS.to_owned() }
    }
}

/// What was fetched, in the form in which it travels.
#[derive(Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The endorsements.
    pub endorsements: Bytes,
    /// When the first part of them ends.
    pub expires: Timestamp,
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (length, until) = (self.endorsements.len(), self.expires.as_unix_secs());
        write!(f, "Fetched({length} bytes, until {until})")
    }
}

/// One document of a vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// Intel: levels of firmware and what is known against them.
    TcbInfo,
    /// Intel: the quoting enclave's identity.
    QeIdentity,
    /// Intel: revoked platform certificates.
    PckCrl,
    /// Intel: revoked intermediates.
    RootCrl,
    /// AMD: the certificate of the chip's key.
    Vcek,
    /// AMD: the certificates of the family.
    CertificateChain,
    /// AMD: revoked intermediates.
    AmdCrl,
}

impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TcbInfo => "Intel's TCB info",
            Self::QeIdentity => "Intel's QE identity",
            Self::PckCrl => "Intel's PCK revocation list",
            Self::RootCrl => "Intel's root revocation list",
            Self::Vcek => "AMD's VCEK certificate",
            Self::CertificateChain => "AMD's certificate chain",
            Self::AmdCrl => "AMD's revocation list",
        })
    }
}

/// Why endorsements could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The service does not answer.
    #[error("{document} cannot be fetched: {source}")]
    Http {
        /// Which document.
        document: Document,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// The service asks for patience.
    #[error("{document} cannot be fetched: the service answers 429, too many requests")]
    RateLimited {
        /// Which document.
        document: Document,
        /// How long it wants to be left alone, if it says.
        retry_after: Option<Millis>,
    },
    /// The service does not know this platform.
    #[error(
        "{document} cannot be fetched: the service does not know this platform (404); on Intel, \
         register it (`mpa_manage`), or check the URL in the settings"
    )]
    Unknown {
        /// Which document.
        document: Document,
    },
    /// The service answers with another failure.
    #[error("{document} cannot be fetched: the service answers {status}")]
    Status {
        /// Which document.
        document: Document,
        /// HTTP status.
        status: u16,
    },
    /// The answer is not the document.
    #[error("the service's answer is not {document}: {problem}")]
    Form {
        /// Which document.
        document: Document,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The document has ended already.
    #[error("{document} from the service has expired; check this machine's clock and the service")]
    Expired {
        /// Which document.
        document: Document,
    },
    /// The evidence does not say what is needed to find its endorsements.
    #[error("the evidence does not say which endorsements it needs: {problem}")]
    Evidence {
        /// What is missing.
        problem: &'static str,
    },
}

/// Fetches what a verifier of `raw` needs. Nothing is retried here.
///
/// # Errors
/// The first document that could not be had.
pub async fn fetch(
    http: &dyn Http,
    sources: &Sources,
    raw: &RawEvidence,
    now: Timestamp,
) -> Result<Fetched, FetchError> {
    let fetched = match &raw.evidence {
        Evidence::Tdx { quote } => {
            intel::fetch(http, &sources.pcs, &intel::Platform::of(quote)?, now).await?
        }
        Evidence::Snp { report } => {
            let platform = amd::Platform::of(report)?;
            amd::fetch(http, &sources.kds, &platform, &raw.certificates, now).await?
        }
        Evidence::None | Evidence::SimulatedTdx { .. } | Evidence::SimulatedSnp { .. } => {
            return Err(FetchError::Evidence { problem: "it is no hardware's" });
        }
    };
    if fetched.endorsements.len() > limits::ATTEST_RESPONSE_BYTES - limits::EVIDENCE_BYTES {
        let problem = "all documents together are larger than a session allows";
        return Err(FetchError::Form { document: Document::TcbInfo, problem });
    }
    Ok(fetched)
}

/// Whether each vendor's service answers, by a small document that is the same for everybody.
pub async fn reachable(
    http: &dyn Http,
    sources: &Sources,
) -> [(&'static str, Result<(), FetchError>); 2] {
    [
        ("Intel's PCS", intel::reach(http, &sources.pcs).await),
        ("AMD's KDS", amd::reach(http, &sources.kds).await),
    ]
}

/// What tells platforms apart that need different endorsements: a name for a cache.
pub(crate) fn platform_of(evidence: &Evidence) -> Result<String, FetchError> {
    match evidence {
        Evidence::Tdx { quote } => Ok(intel::Platform::of(quote)?.to_string()),
        Evidence::Snp { report } => Ok(amd::Platform::of(report)?.to_string()),
        Evidence::None | Evidence::SimulatedTdx { .. } | Evidence::SimulatedSnp { .. } => {
            Err(FetchError::Evidence { problem: "it is no hardware's" })
        }
    }
}
