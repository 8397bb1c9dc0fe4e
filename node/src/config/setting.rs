//! What a setting is: its name in flags, files and the environment, its default and its unit.
//!
//! Owns: the shape of one row of the settings table and the spelling of its three names.
//! Must not: hold a setting's value, or know which settings there are (the table in `mod.rs`).

/// How a value is written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A quoted string.
    Text,
    /// A quoted string that names a file or a folder; a relative one in a file starts at the
    /// file's own folder.
    Path,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// An array of quoted strings; comma-separated in the environment, repeated as a flag.
    List,
}

impl Kind {
    /// The kind in words, for errors.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Text => "a quoted string",
            Self::Path => "a quoted path",
            Self::Integer => "a whole number",
            Self::Boolean => "true or false",
            Self::List => "an array of quoted strings",
        }
    }
}

/// What a setting is when nobody sets it.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// Nothing: the setting is optional.
    Unset,
    /// A text, read by the same parser as a user's.
    Text(&'static str),
    /// Worked out from the machine or from another setting; the first part says how, for the help.
    Derived(&'static str, fn(&Surroundings) -> Option<String>),
}

/// What defaults may depend on. Filled in by the binary: nothing below it looks at the machine.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where the system keeps users' data, `$XDG_DATA_HOME` or its fallback; `None` without a home.
    pub data_home: Option<String>,
    /// Where the system keeps users' settings, `$XDG_CONFIG_HOME` or its fallback.
    pub config_home: Option<String>,
    /// Threads that the machine runs at once.
    pub threads: usize,
    /// Which network the node is on; set by the loader before other defaults are asked for.
    pub network: cocoon_protocol::identity::Network,
}

/// One row of the settings table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key in a file; the other names follow from it.
    pub key: &'static str,
    /// Heading in the help.
    pub heading: &'static str,
    /// What it means and why its default is what it is: the lines of the doc comment.
    pub lines: &'static [&'static str],
    /// The default.
    pub fallback: Fallback,
    /// How it is written in a file.
    pub kind: Kind,
    /// What a bare value counts or what it is per; empty when the value carries its unit itself.
    pub unit: &'static str,
    /// Placeholder for the value in the help.
    pub placeholder: &'static str,
    /// The value is never shown.
    pub secret: bool,
    /// Not in the help; for tests and demonstrations.
    pub hidden: bool,
    /// A second environment variable that is read when the first is not set.
    pub also_variable: Option<&'static str>,
    /// Shown in the help of every command, not only where a node is run.
    pub everywhere: bool,
}

impl Setting {
    /// A row without the optional parts.
    pub(crate) const fn row(
        key: &'static str,
        heading: &'static str,
        lines: &'static [&'static str],
        fallback: Fallback,
        kind: Kind,
    ) -> Self {
        Self {
            key,
            heading,
            lines,
            fallback,
            kind,
            unit: "",
            placeholder: "VALUE",
            secret: false,
            hidden: false,
            also_variable: None,
            everywhere: false,
        }
    }

    /// The flag without its dashes: `entry-points`.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// The environment variable: `COCOON_ENTRY_POINTS`.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key.to_ascii_uppercase())
    }

    /// The default in words, for the help; `None` when there is none.
    pub const fn fallback_text(&self) -> Option<&'static str> {
        match self.fallback {
            Fallback::Text(text) | Fallback::Derived(text, _) if !text.is_empty() => Some(text),
            Fallback::Unset | Fallback::Text(_) | Fallback::Derived(..) => None,
        }
    }
}

/// What every environment variable of ours begins with.
pub const VARIABLE_PREFIX: &str = "COCOON_";
