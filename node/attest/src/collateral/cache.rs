//! The last good endorsements on disk, so that a provider starts while a vendor's service is away.
//!
//! Owns: one file for each platform, replaced whole. Must not: keep secrets; everything is public.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cocoon_protocol::limits;
use cocoon_protocol::units::Timestamp;
use serde::{Deserialize, Serialize};

use super::Fetched;
use crate::tsm::read_bounded;

/// The form's version.
const VERSION: u32 = 1;
/// Endorsements in hexadecimal, and some.
const FILE_BYTES: usize = 2 * limits::ATTEST_RESPONSE_BYTES + 4_096;

/// Why endorsements could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file or its folder cannot be written.
    #[error("`{}` cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    cocoon_endorsements: u32,
    platform: String,
    expires: u64,
    endorsements: String,
}

/// A folder of them.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(super) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, platform: &str) -> PathBuf {
        self.folder.join(format!("{platform}.json"))
    }

    /// What was kept for `platform` and has not ended at `now`. A file that is damaged counts as none:
    /// the service has it again.
    pub(super) fn load(&self, platform: &str, now: Timestamp) -> Option<Fetched> {
        let bytes = read_bounded(&self.path(platform), FILE_BYTES).ok()?;
        let form: Form = serde_json::from_slice(&bytes).ok()?;
        let expires = Timestamp::from_unix_secs(form.expires);
        let fits = form.cocoon_endorsements == VERSION && form.platform == platform;
        let endorsements = hex::decode(form.endorsements).ok()?;
        let fits = fits && expires > now && !endorsements.is_empty();
        fits.then(|| Fetched { endorsements: endorsements.into(), expires })
    }

    /// Keeps `fetched`. Whoever reads meanwhile, or after a crash, finds the old file or the new one.
    pub(super) fn store(&self, platform: &str, fetched: &Fetched) -> Result<(), CacheError> {
        let path = self.path(platform);
        let form = Form {
            cocoon_endorsements: VERSION,
            platform: platform.to_owned(),
            expires: fetched.expires.as_unix_secs(),
            endorsements: hex::encode(&fetched.endorsements),
        };
        let bytes = serde_json::to_vec(&form).map_err(io::Error::from);
        bytes
            .and_then(|bytes| replace(&path, &bytes))
            .map_err(|source| CacheError::Write { path, source })
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_secs(1_000);

    fn fetched(expires: u64) -> Fetched {
        let expires = Timestamp::from_unix_secs(expires);
        Fetched { endorsements: b"endorsements"[..].into(), expires }
    }

    #[test]
    fn what_was_kept_is_found_again_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("endorsements"));
        assert_eq!(cache.load("tdx-1", NOW), None);
        for expires in [1_500, 2_000] {
            cache.store("tdx-1", &fetched(expires)).unwrap();
            assert_eq!(cache.load("tdx-1", NOW), Some(fetched(expires)));
        }
        assert_eq!(cache.load("tdx-1", Timestamp::from_unix_secs(2_000)), None);
        assert_eq!(cache.load("tdx-2", NOW), None);
        assert_eq!(std::fs::read_dir(cache.folder).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_or_another_platforms_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned());
        cache.store("snp-1", &fetched(2_000)).unwrap();
        let good = std::fs::read(cache.path("snp-1")).unwrap();
        std::fs::write(cache.path("snp-2"), &good).unwrap();
        assert_eq!(cache.load("snp-2", NOW), None);
        for end in 0..good.len() {
            std::fs::write(cache.path("snp-1"), &good[..end]).unwrap();
            assert_eq!(cache.load("snp-1", NOW), None, "cut at {end}");
        }
        std::fs::write(cache.path("snp-1"), vec![b' '; FILE_BYTES + 1]).unwrap();
        assert_eq!(cache.load("snp-1", NOW), None);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = Cache::new(file.join("below")).store("tdx", &fetched(2_000)).unwrap_err();
        assert!(error.to_string().ends_with("tdx.json` cannot be written"), "{error}");
    }
}
