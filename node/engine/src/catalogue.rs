//! Names for models: which name means which hash, and where the file lies.
//!
//! Owns: the local aliases and their file. A provider's own naming is never believed: a name is
//! resolved here, by whoever asks, and `blake3:<64 hexadecimal digits>` works without an entry.
//! Must not: choose where its file lies, or load models.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cocoon_protocol::identity::ModelHash;
use cocoon_protocol::limits;
use cocoon_protocol::units::Tokens;
use serde::{Deserialize, Serialize};

use crate::gguf::{GgufError, Metadata};
use crate::hashing::HashCache;

/// What stands in front of a hash where a model's name is expected.
pub const HASH_PREFIX: &str = "blake3:";
/// Size of a catalogue file that is read: about ten thousand models.
const FILE_BYTES: u64 = 4 << 20;

/// What is known of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// BLAKE3 of the file.
    pub hash: ModelHash,
    /// Where the file lies; nothing when this node only asks others for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Size of the file in bytes.
    pub size: u64,
    /// The context that it was trained for; zero when its file does not say.
    pub context: Tokens,
    /// How its weights are stored: `Q4_K_M`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantisation: Option<String>,
    /// Its licence, as the file states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// Why a file cannot be entered in the catalogue.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// Its header is no model's.
    #[error("`{}` is not a model that can be served", path.display())]
    Header {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: GgufError,
    },
    /// It could not be read to its end.
    #[error("`{}` cannot be read", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Model {
    /// The entry of the GGUF file at `path`: its header, then its hash, with `progress` told the
    /// bytes done and the size. Blocking, for as long as the disk takes.
    pub fn describe(
        path: &Path,
        hashes: &HashCache,
        progress: impl FnMut(u64, u64),
    ) -> Result<Self, DescribeError> {
        let io = |source| DescribeError::Io { path: path.to_owned(), source };
        let header = Metadata::read_file(path)
            .map_err(|source| DescribeError::Header { path: path.to_owned(), source })?;
        let size = std::fs::metadata(path).map_err(io)?.len();
        let hash = hashes.hash(path, progress).map_err(io)?;
        Ok(Self {
            hash,
            path: Some(path.to_owned()),
            size,
            context: header.context.unwrap_or_default(),
            quantisation: header.quantisation,
            licence: header.licence,
        })
    }
}

/// The models that this node knows by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    #[serde(default)]
    models: BTreeMap<String, Model>,
}

/// Why the catalogue's file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueFileError {
    /// The file could not be read or written.
    #[error("the catalogue `{}` cannot be read or written", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any catalogue.
    #[error("the catalogue `{}` is larger than {FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// The file is not a catalogue.
    #[error("the catalogue `{}` is malformed; correct it or move it away", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The catalogue cannot be written as TOML.
    #[error("the catalogue holds what its file cannot: a path that is not Unicode")]
    Unwritable(#[source] Box<toml::ser::Error>),
    /// The file holds a name that is not allowed.
    #[error("the catalogue holds a name that is not allowed")]
    Name(#[source] NameError),
}

/// Why a text cannot name a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than `limits::MODEL_NAME_BYTES`.
    #[error("a model's name has 1 to {} bytes", limits::MODEL_NAME_BYTES)]
    Length,
    /// A character that would need quoting somewhere, or a name that looks like a hash.
    #[error(
        "a model's name has letters, digits and `.`, `_`, `-`, `/`, `:`, and does not begin with `blake3:`"
    )]
    Characters,
}

/// Why a name stands for no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name is not in the catalogue.
    #[error("no model is known by this name; `cocoon-node models list` shows the known ones")]
    Unknown,
    /// `blake3:` is not followed by a hash.
    #[error("`blake3:` must be followed by 64 hexadecimal digits")]
    BadHash,
}

impl Catalogue {
    /// Reads the catalogue at `path`; an empty one when there is no such file.
    pub fn load(path: &Path) -> Result<Self, CatalogueFileError> {
        let io = |source| CatalogueFileError::Io { path: path.to_owned(), source };
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(io(error)),
            Ok(metadata) if metadata.len() > FILE_BYTES => {
                return Err(CatalogueFileError::TooLarge { path: path.to_owned() });
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        let catalogue: Self = toml::from_str(&text).map_err(|source| {
            CatalogueFileError::Malformed { path: path.to_owned(), source: Box::new(source) }
        })?;
        for name in catalogue.models.keys() {
            check_name(name).map_err(CatalogueFileError::Name)?;
        }
        Ok(catalogue)
    }

    /// Writes the catalogue to `path`, so that a crash at any point leaves the old file or the new
    /// one and never a part: a temporary file beside it, synced, then renamed over it.
    pub fn save(&self, path: &Path) -> Result<(), CatalogueFileError> {
        let text = toml::to_string_pretty(self)
            .map_err(|error| CatalogueFileError::Unwritable(Box::new(error)))?;
        write_atomically(path, text.as_bytes())
            .map_err(|source| CatalogueFileError::Io { path: path.to_owned(), source })
    }

    /// Adds a model under `name`, or replaces the one that had it.
    pub fn insert(&mut self, name: &str, model: Model) -> Result<Option<Model>, NameError> {
        check_name(name)?;
        Ok(self.models.insert(name.to_owned(), model))
    }

    /// Removes the model called `name`.
    pub fn remove(&mut self, name: &str) -> Option<Model> {
        self.models.remove(name)
    }

    /// The model called `name`.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.get(name)
    }

    /// What is known of the model with this hash, and its first name.
    pub fn find(&self, hash: ModelHash) -> Option<(&str, &Model)> {
        self.iter().find(|(_, model)| model.hash == hash)
    }

    /// All models, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Model)> {
        self.models.iter().map(|(name, model)| (name.as_str(), model))
    }

    /// The hash that `name` stands for: an entry's, or the one written as `blake3:<hex>`.
    pub fn resolve(&self, name: &str) -> Result<ModelHash, ResolveError> {
        match name.strip_prefix(HASH_PREFIX) {
            Some(hex) => ModelHash::from_hex(hex).ok_or(ResolveError::BadHash),
            None => self.models.get(name).map(|model| model.hash).ok_or(ResolveError::Unknown),
        }
    }
}

/// Checks that `name` can name a model: it appears in offers, configuration and HTTP.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > limits::MODEL_NAME_BYTES {
        return Err(NameError::Length);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte);
    if name.starts_with(HASH_PREFIX) || !name.bytes().all(allowed) {
        return Err(NameError::Characters);
    }
    Ok(())
}

fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = name.to_owned();
    temporary.push(".new");
    let temporary = folder.join(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temporary, path)?;
    // The rename itself is durable once the folder is.
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model(byte: u8) -> Model {
        Model {
            hash: ModelHash::from_bytes([byte; 32]),
            path: Some(PathBuf::from("/models/a b.gguf")),
            size: u64::from(u32::MAX) + 1,
            context: Tokens::new(8_192),
            quantisation: Some("Q4_1".into()),
            licence: None,
        }
    }

    fn catalogue() -> Catalogue {
        let mut catalogue = Catalogue::default();
        catalogue.insert("smollm2-135m", model(0xab)).unwrap();
        catalogue.insert("org/big:7b", Model { path: None, ..model(0xcd) }).unwrap();
        catalogue
    }

    #[test]
    fn a_saved_catalogue_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("models.toml");
        assert_eq!(Catalogue::load(&path).unwrap(), Catalogue::default());
        catalogue().save(&path).unwrap();
        assert_eq!(Catalogue::load(&path).unwrap(), catalogue());
        Catalogue::default().save(&path).unwrap();
        assert_eq!(Catalogue::load(&path).unwrap(), Catalogue::default());
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file stays");
    }

    /// The file is for people to edit, so its form is fixed.
    #[test]
    fn the_file_has_its_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("models.toml");
        catalogue().save(&path).unwrap();
        let ab = "ab".repeat(32);
        let cd = "cd".repeat(32);
        let expected = format!(
            "[models.\"org/big:7b\"]\nhash = \"{cd}\"\nsize = 4294967296\ncontext = 8192\n\
             quantisation = \"Q4_1\"\n\n[models.smollm2-135m]\nhash = \"{ab}\"\n\
             path = \"/models/a b.gguf\"\nsize = 4294967296\ncontext = 8192\n\
             quantisation = \"Q4_1\"\n"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn names_and_hashes_resolve() {
        let catalogue = catalogue();
        let hash = ModelHash::from_bytes([0xab; 32]);
        assert_eq!(catalogue.resolve("smollm2-135m"), Ok(hash));
        assert_eq!(catalogue.resolve(&format!("blake3:{hash}")), Ok(hash));
        let unknown = ModelHash::from_bytes([1; 32]);
        assert_eq!(catalogue.resolve(&format!("blake3:{unknown}")), Ok(unknown));
        assert_eq!(catalogue.resolve("gpt-5"), Err(ResolveError::Unknown));
        assert_eq!(catalogue.resolve("blake3:ab"), Err(ResolveError::BadHash));
        assert_eq!(catalogue.find(hash).unwrap().0, "smollm2-135m");
    }

    #[test]
    fn names_that_would_need_quoting_are_refused() {
        let mut catalogue = Catalogue::default();
        for name in ["a b", "ä", "blake3:x", "a\n", "\"", "a?b"] {
            assert_eq!(catalogue.insert(name, model(1)), Err(NameError::Characters), "{name}");
        }
        for name in [String::new(), "x".repeat(65)] {
            assert_eq!(catalogue.insert(&name, model(1)), Err(NameError::Length));
        }
    }

    #[test]
    fn a_malformed_file_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("models.toml");
        std::fs::write(&path, "[models.x]\nhash = \"12\"\n").unwrap();
        assert!(matches!(Catalogue::load(&path), Err(CatalogueFileError::Malformed { .. })));
        std::fs::write(&path, vec![b' '; usize::try_from(FILE_BYTES).unwrap() + 1]).unwrap();
        assert!(matches!(Catalogue::load(&path), Err(CatalogueFileError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn any_file_is_a_catalogue_or_an_error(text in ".{0,200}") {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("models.toml");
            std::fs::write(&path, text).unwrap();
            let _ = Catalogue::load(&path);
        }
    }
}
