//! The identity of a model file: its BLAKE3 hash, computed once per version of the file.
//!
//! Owns: streaming over the file, progress, and the cache of known hashes.
//! Must not: decide which models may be loaded.

use std::fs::{File, Metadata as FileMetadata};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use cocoon_protocol::identity::ModelHash;

/// Bytes read at a time: large enough that BLAKE3 uses its widest vectors throughout.
const CHUNK_BYTES: usize = 1 << 20;
/// Files whose hash is remembered; a node that serves more hashes some of them again.
const CACHED_FILES: usize = 256;

/// Hashes the file at `path`, telling `progress` the bytes done and the file's size after every
/// chunk. Blocking: some 2.4 GB each second from the page cache, otherwise as fast as the disk.
pub fn hash_file(path: &Path, mut progress: impl FnMut(u64, u64)) -> io::Result<ModelHash> {
    each_chunk(path, |_, done, size| {
        progress(done, size);
        Ok(())
    })
}

/// Copies the file at `path` into `copy` and hashes the bytes that it writes: whatever happens to the
/// file afterwards, or between two reads of it, the copy has this hash. Blocking.
pub fn copy_and_hash(path: &Path, copy: &mut File) -> io::Result<ModelHash> {
    each_chunk(path, |chunk, _, _| copy.write_all(chunk))
}

/// The hash of the file at `path`; `take` gets every chunk with the bytes done and the file's size.
fn each_chunk(
    path: &Path,
    mut take: impl FnMut(&[u8], u64, u64) -> io::Result<()>,
) -> io::Result<ModelHash> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = 0_u64;
    loop {
        let read = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = chunk.get(..read).unwrap_or(&chunk);
        hasher.update(bytes);
        done = done.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        take(bytes, done, size)?;
    }
    Ok(ModelHash::from_bytes(*hasher.finalize().as_bytes()))
}

/// What tells one version of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    path: PathBuf,
    size: u64,
    modified_nanos: u128,
    inode: u64,
}

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        // A time before the epoch is no reason to fail; it is then all the same version.
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            size: metadata.len(),
            modified_nanos: modified.as_nanos(),
            inode: inode(&metadata),
        })
    }
}

#[cfg(unix)]
fn inode(metadata: &FileMetadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_metadata: &FileMetadata) -> u64 {
    0
}

/// Hashes of files that have not changed since they were read: same path, size, time and inode.
///
/// Good enough to show and to advertise a model. The engine hashes again before it loads one.
#[derive(Debug, Default)]
pub struct HashCache {
    /// Oldest first.
    known: Mutex<Vec<(Version, ModelHash)>>,
}

impl HashCache {
    /// The hash of the file at `path`, read only if it is not known. Blocking.
    pub fn hash(&self, path: &Path, progress: impl FnMut(u64, u64)) -> io::Result<ModelHash> {
        let before = Version::of(path)?;
        if let Some(hash) = self.find(&before) {
            return Ok(hash);
        }
        let hash = hash_file(path, progress)?;
        // A file that was written to meanwhile has no hash worth remembering.
        if Version::of(path)? == before {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|(version, _)| version.path != before.path);
            if known.len() >= CACHED_FILES {
                known.remove(0);
            }
            known.push((before, hash));
        }
        Ok(hash)
    }

    fn find(&self, version: &Version) -> Option<ModelHash> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find_map(|(candidate, hash)| (candidate == version).then_some(*hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From BLAKE3's official test vectors: input bytes count 0 to 250 over and over.
    const VECTORS: [(usize, &str); 3] = [
        (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
        (102_400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"),
    ];

    fn vector(length: usize) -> Vec<u8> {
        (0..=250_u8).cycle().take(length).collect()
    }

    #[test]
    fn files_have_the_hashes_of_the_official_vectors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (length, expected) in VECTORS {
            std::fs::write(&path, vector(length)).unwrap();
            assert_eq!(hash_file(&path, |_, _| ()).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn a_copy_has_the_bytes_that_were_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("file"), folder.path().join("copy"));
        std::fs::write(&path, vector(CHUNK_BYTES + 77)).unwrap();
        let hash = copy_and_hash(&path, &mut File::create(&copy).unwrap()).unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), vector(CHUNK_BYTES + 77));
        assert_eq!(hash, hash_file(&path, |_, _| ()).unwrap());
    }

    #[test]
    fn progress_reaches_the_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vector(CHUNK_BYTES * 2 + 5)).unwrap();
        let mut calls = Vec::new();
        hash_file(&path, |done, size| calls.push((done, size))).unwrap();
        let size = u64::try_from(CHUNK_BYTES * 2 + 5).unwrap();
        assert_eq!(calls.last(), Some(&(size, size)));
        assert!(calls.len() >= 3 && calls.is_sorted());
    }

    #[test]
    fn a_known_file_is_not_read_again_and_a_changed_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let cache = HashCache::default();
        let count = |cache: &HashCache| {
            let mut reads = 0;
            let hash = cache.hash(&path, |_, _| reads += 1).unwrap();
            (hash, reads)
        };
        let (first, reads) = count(&cache);
        assert_eq!(reads, 1);
        assert_eq!(count(&cache), (first, 0));
        std::fs::write(&path, "other").unwrap();
        let (second, reads) = count(&cache);
        assert_eq!((second == first, reads), (false, 1));
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        assert!(hash_file(Path::new("/nonexistent/model.gguf"), |_, _| ()).is_err());
    }
}
