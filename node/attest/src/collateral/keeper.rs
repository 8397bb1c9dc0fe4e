//! Fresh endorsements on the shelf: from the service, and from disk while the service is away.
//!
//! Owns: one refresh, and how long to wait for the next. Must not: wait; the node's task does.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use cocoon_protocol::attest::{Evidence, SnpEndorsements};
use cocoon_protocol::limits;
use cocoon_protocol::units::{Millis, Timestamp};

use super::cache::Cache;
use super::http::Http;
use super::{FetchError, Fetched, Sources, fetch, pem, platform_of, schedule};
use crate::hardware::{EndorsementShelf, RawEvidence};
use crate::tsm::read_bounded;

/// A file is read again this often: somebody else keeps it fresh.
const FILE_AGAIN: Millis = Millis::from_secs(600);

/// What a keeper works with.
#[derive(Clone, Debug)]
pub struct KeeperOptions {
    /// How the services are asked.
    pub http: Arc<dyn Http>,
    /// Which services.
    pub sources: Sources,
    /// A file that the operator keeps fresh, instead of the services: DCAP collateral as JSON for TDX,
    /// `SnpEndorsements` for SEV-SNP.
    pub file: Option<PathBuf>,
    /// Folder for the last good endorsements.
    pub folder: PathBuf,
    /// Where quotes take them from.
    pub shelf: EndorsementShelf,
}

/// Where the endorsements on the shelf came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The vendor's service, just now.
    Service,
    /// The folder of the last good ones.
    Cache,
    /// The operator's file.
    File,
}

/// What is on the shelf now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// Where it came from.
    pub origin: Origin,
    /// When its first part ends.
    pub expires: Timestamp,
    /// How long to wait before the next refresh.
    pub again: Millis,
}

/// Why there is nothing new on the shelf; what was there stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeeperError {
    /// The service failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The operator's file cannot be read.
    #[error("the endorsements' file `{}` cannot be read ({kind})", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        kind: std::io::ErrorKind,
    },
    /// The operator's file is not what it should be.
    #[error(
        "`{}` holds no endorsements for this TEE, or they have ended; for TDX it is DCAP \
         collateral as JSON",
        path.display()
    )]
    FileForm {
        /// Which.
        path: PathBuf,
    },
}

impl KeeperError {
    const fn retry_after(&self) -> Option<Millis> {
        match self {
            Self::Fetch(FetchError::RateLimited { retry_after, .. }) => *retry_after,
            Self::Fetch(_) | Self::File { .. } | Self::FileForm { .. } => None,
        }
    }
}

/// Keeps the shelf fresh.
#[derive(Debug)]
pub struct Keeper {
    options: KeeperOptions,
    cache: Cache,
    failures: u32,
}

impl Keeper {
    /// A keeper; it touches nothing yet.
    pub fn new(options: KeeperOptions) -> Self {
        let cache = Cache::new(options.folder.clone());
        Self { options, cache, failures: 0 }
    }

    /// Puts on the shelf what an earlier run kept for the platform of `raw`, if it still holds.
    pub fn restore(&self, raw: &RawEvidence, now: Timestamp) -> Option<Refreshed> {
        let platform = platform_of(&raw.evidence).ok()?;
        let kept = self.cache.load(&platform, now)?;
        let again = schedule::after_success(now, kept.expires);
        let expires = kept.expires;
        self.options.shelf.put(kept.endorsements);
        Some(Refreshed { origin: Origin::Cache, expires, again })
    }

    /// Fetches what `raw` needs, puts it on the shelf and keeps it on disk.
    ///
    /// # Errors
    /// Why not; the shelf is as it was. [`Self::wait`] says when to try again.
    pub async fn refresh(
        &mut self,
        raw: &RawEvidence,
        now: Timestamp,
    ) -> Result<Refreshed, KeeperError> {
        let options = &self.options;
        let done = match &options.file {
            Some(path) => read_file(path, &raw.evidence, now),
            None => fetch(options.http.as_ref(), &options.sources, raw, now)
                .await
                .map_err(KeeperError::from),
        };
        let fetched = match done {
            Ok(fetched) => fetched,
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                return Err(error);
            }
        };
        self.failures = 0;
        let expires = fetched.expires;
        options.shelf.put(fetched.endorsements.clone());
        if options.file.is_some() {
            return Ok(Refreshed { origin: Origin::File, expires, again: FILE_AGAIN });
        }
        if let Ok(platform) = platform_of(&raw.evidence)
            && let Err(error) = self.cache.store(&platform, &fetched)
        {
            tracing::warn!(%error, "endorsements are not kept for the next start");
        }
        let again = schedule::after_success(now, expires);
        Ok(Refreshed { origin: Origin::Service, expires, again })
    }

    /// How long to wait after a refresh failed with `error`; `random` spreads providers that failed
    /// together.
    pub fn wait(&self, error: &KeeperError, random: u16) -> Millis {
        schedule::after_failure(self.failures, error.retry_after(), random)
    }
}

fn read_file(
    path: &std::path::Path,
    evidence: &Evidence,
    now: Timestamp,
) -> Result<Fetched, KeeperError> {
    let limit = limits::ATTEST_RESPONSE_BYTES - limits::EVIDENCE_BYTES;
    let bytes = read_bounded(path, limit)
        .map_err(|error| KeeperError::File { path: path.to_owned(), kind: error.kind() })?;
    let expires = match evidence {
        Evidence::Tdx { .. } => crate::tdx::collateral_expires(&bytes),
        Evidence::Snp { .. } => SnpEndorsements::from_bytes(&bytes).ok().and_then(|parts| {
            [pem::not_after(&parts.vek), pem::not_after(&parts.ask), pem::next_update(&parts.crl)]
                .into_iter()
                .collect::<Option<Vec<_>>>()?
                .into_iter()
                .min()
        }),
        Evidence::None | Evidence::SimulatedTdx { .. } | Evidence::SimulatedSnp { .. } => None,
    };
    match expires {
        Some(expires) if expires > now && bytes.len() <= limit => {
            Ok(Fetched { endorsements: Bytes::from(bytes), expires })
        }
        Some(_) | None => Err(KeeperError::FileForm { path: path.to_owned() }),
    }
}
