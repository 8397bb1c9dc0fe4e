//! Laying the sources over one another: default, file, environment, flag.
//!
//! Owns: the order of the sources, and the record of where each value came from.
//! Must not: read the environment or the command line; both come in as maps.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use cocoon_protocol::identity::Network;

use super::check::Conflict;
use super::file::{self, FileError, FileValue};
use super::setting::{Fallback, Setting, Surroundings, VARIABLE_PREFIX};
use super::value::{Raw, SettingValue, ValueError};
use super::{Config, SETTINGS, setting};

/// Largest configuration file that is read. A full one is under 4 KiB; anything near the bound is
/// a wrong path.
const FILE_BYTES: u64 = 1 << 20;

/// What a user said, by source.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The configuration file, if one was named.
    pub file: Option<PathBuf>,
    /// Environment variables, name to value; ours and any other.
    pub environment: BTreeMap<String, String>,
    /// Flags, by the setting's key.
    pub flags: BTreeMap<&'static str, Raw>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A flag.
    Flag {
        /// Its name, with dashes.
        flag: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { variable } => write!(f, "${variable}"),
            Self::Flag { flag } => f.write_str(flag),
        }
    }
}

/// A configuration and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Where each came from, in the order of [`SETTINGS`].
    pub origins: Vec<Origin>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The named file is far larger than any configuration.
    #[error("{} is too large for a configuration file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file's content was refused.
    #[error("the configuration file {} was refused", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: FileError,
    },
    /// A value is not of its setting's type.
    #[error("the setting `{key}` ({origin}) has no legal value")]
    BadValue {
        /// The setting.
        key: &'static str,
        /// Where the value came from.
        origin: Origin,
        /// Why.
        source: ValueError,
    },
    /// A default could not be worked out.
    #[error("the setting `{key}` has no default on this machine")]
    NoDefault {
        /// The setting.
        key: &'static str,
    },
    /// Two settings do not go together.
    #[error("the settings do not go together")]
    Conflict(#[source] Conflict),
}

impl ConfigError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File { source: FileError::UnknownKey { nearest, .. }, .. } => {
                Some(match nearest {
                    Some(nearest) => format!("did you mean `{nearest}`?"),
                    None => "`cocoon-node config print` lists every setting".to_owned(),
                })
            }
            Self::BadValue { key, .. } => setting(key)
                .and_then(Setting::fallback_text)
                .map(|text| format!("the default is `{text}`; `cocoon-node --help` says more")),
            Self::NoDefault { key } => {
                setting(key).map(|row| format!("give it with `--{}`", row.flag()))
            }
            Self::Conflict(conflict) => Some(conflict.hint().to_owned()),
            Self::Unreadable { .. } | Self::TooLarge { .. } | Self::File { .. } => None,
        }
    }
}

/// The variables in `environment` that look like ours and are no setting's, with the one that was
/// probably meant. `allowed` are ours without being settings.
pub fn unknown_variables<'a>(
    environment: &'a BTreeMap<String, String>,
    allowed: &[&str],
) -> Vec<(&'a str, Option<String>)> {
    environment
        .keys()
        .filter_map(|name| Some((name, name.strip_prefix(VARIABLE_PREFIX)?)))
        .filter(|(name, _)| !allowed.contains(&name.as_str()))
        .filter(|(name, _)| SETTINGS.iter().all(|setting| setting.variable() != **name))
        .map(|(name, rest)| {
            (name.as_str(), file::nearest(rest).and_then(setting).map(Setting::variable))
        })
        .collect()
}

impl Loaded {
    /// Reads the file, lays the sources over one another, and checks the result.
    pub fn new(layers: &Layers, surroundings: &Surroundings) -> Result<Self, ConfigError> {
        let loaded = Self::unchecked(layers, surroundings)?;
        loaded.config.check().map_err(ConfigError::Conflict)?;
        Ok(loaded)
    }

    /// As [`Loaded::new`], without checking one setting against another: for commands that need
    /// the data folder of a node, whose other settings may be unfinished.
    pub fn unchecked(layers: &Layers, surroundings: &Surroundings) -> Result<Self, ConfigError> {
        let from_file = match &layers.file {
            Some(path) => read_file(path)?,
            None => BTreeMap::new(),
        };
        let mut resolver =
            Resolver { layers, from_file: &from_file, surroundings: surroundings.clone() };
        // Defaults of other settings depend on the network, so it is resolved first.
        resolver.surroundings.network = resolver.read::<Network>("network")?;
        let config = Config::read(&resolver)?;
        let origins = SETTINGS.iter().map(|row| resolver.given(row).1).collect();
        Ok(Self { config, origins })
    }
}

fn read_file(path: &Path) -> Result<BTreeMap<&'static str, FileValue>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let folder = absolute.parent().unwrap_or(&absolute);
    file::read(&text, folder).map_err(|source| ConfigError::File { path: path.to_owned(), source })
}

/// All sources, ready to be asked for one setting after another.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    layers: &'a Layers,
    from_file: &'a BTreeMap<&'static str, FileValue>,
    surroundings: Surroundings,
}

impl Resolver<'_> {
    /// The strongest source's value, and which source that is.
    fn given(&self, row: &Setting) -> (Option<Raw>, Origin) {
        if let Some(raw) = self.layers.flags.get(row.key) {
            return (Some(raw.clone()), Origin::Flag { flag: format!("--{}", row.flag()) });
        }
        let variables = [Some(row.variable()), row.also_variable.map(str::to_owned)];
        for variable in variables.into_iter().flatten() {
            if let Some(text) = self.layers.environment.get(&variable) {
                return (Some(Raw::One(text.clone())), Origin::Environment { variable });
            }
        }
        if let (Some(value), Some(path)) = (self.from_file.get(row.key), &self.layers.file) {
            let origin = Origin::File { path: path.clone(), line: value.line };
            return (Some(value.raw.clone()), origin);
        }
        let text = match row.fallback {
            Fallback::Unset => None,
            Fallback::Text(text) => Some(text.to_owned()),
            Fallback::Derived(_, derive) => derive(&self.surroundings),
        };
        (text.map(Raw::One), Origin::Default)
    }

    /// One setting's value.
    pub(super) fn read<T: SettingValue>(&self, key: &'static str) -> Result<T, ConfigError> {
        let Some(row) = setting(key) else {
            return Err(ConfigError::NoDefault { key });
        };
        let (raw, origin) = self.given(row);
        T::read(raw.as_ref()).map_err(|source| match (&raw, &row.fallback) {
            (None, Fallback::Derived(..)) => ConfigError::NoDefault { key },
            (Some(_) | None, _) => ConfigError::BadValue { key, origin, source },
        })
    }
}
