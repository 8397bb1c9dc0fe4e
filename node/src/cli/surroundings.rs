//! The only reading of the environment and of the machine.
//!
//! Owns: variables, the home folder, the number of threads, colours.
//! Must not: decide what they mean; the configuration does.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use cocoon_protocol::identity::Network;

use super::{Context, Failure, OTHER_VARIABLES};
use crate::config::{Surroundings, VARIABLE_PREFIX, unknown_variables};

/// Variables of others that we read.
const FOREIGN: [&str; 2] = ["RUST_LOG", "NO_COLOR"];

/// Every variable that could be ours, as text.
pub(super) fn environment() -> Result<BTreeMap<String, String>, Failure> {
    let mut variables = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else {
            continue;
        };
        if !name.starts_with(VARIABLE_PREFIX) && !FOREIGN.contains(&name.as_str()) {
            continue;
        }
        let value = value
            .into_string()
            .map_err(|_| Failure::new(anyhow::anyhow!("the variable `{name}` is not UTF-8")))?;
        variables.insert(name, value);
    }
    Ok(variables)
}

/// What defaults depend on.
pub(super) fn surroundings() -> Surroundings {
    // XDG Base Directory Specification: an unset, empty or relative variable counts as unset.
    let absolute = |name: &str| {
        let value = std::env::var(name).ok()?;
        value.starts_with('/').then_some(value)
    };
    let data_home = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| format!("{home}/.local/share")));
    let config_home = absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| format!("{home}/.config")));
    Surroundings {
        data_home,
        config_home,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        network: Network::Devnet,
    }
}

/// Whether log lines may be coloured: on a terminal, unless <https://no-color.org> says no.
pub(super) fn colour(environment: &BTreeMap<String, String>) -> bool {
    let refused = environment.get("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !refused
}

/// A misspelt variable would otherwise be ignored in silence. It is no error, because scripts
/// around the program may have variables of their own.
pub(super) fn warn_of_unknown_variables(context: &Context) {
    for (name, nearest) in unknown_variables(&context.layers.environment, &OTHER_VARIABLES) {
        let meant = nearest.map(|nearest| format!("; did you mean `{nearest}`?"));
        let meant = meant.unwrap_or_default();
        context.printer.note(format_args!("warning: `{name}` is not a setting{meant}\n"));
    }
}
