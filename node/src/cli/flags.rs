//! The settings' flags, made from the table, so that none can be missing or misspelt.
//!
//! Owns: how a setting looks on the command line and in the help.
//! Must not: read a value; that is for the settings' types.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::config::{Kind, Raw, SETTINGS, Setting};

/// The settings that were given as flags.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingFlags {
    pub(crate) given: BTreeMap<&'static str, Raw>,
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for row in SETTINGS {
            if matches.value_source(row.key) != Some(ValueSource::CommandLine) {
                continue;
            }
            let values = matches.get_many::<String>(row.key).into_iter().flatten().cloned();
            self.given.insert(row.key, Raw::Many(values.collect()));
        }
        Ok(())
    }
}

/// Accepts every setting after a sub-command too, and shows there only those that matter
/// everywhere.
pub(crate) fn hide_in_subcommands(command: Command) -> Command {
    command.mut_subcommands(|subcommand| {
        let hidden = SETTINGS.iter().filter(|row| !row.everywhere);
        subcommand.args(hidden.map(|row| argument(row).hide(true)))
    })
}

fn argument(row: &'static Setting) -> Arg {
    let argument = Arg::new(row.key)
        .long(row.flag())
        .value_name(row.placeholder)
        .help_heading(row.heading)
        .help(short_help(row))
        .long_help(long_help(row))
        .hide(row.hidden)
        .global(true);
    match row.kind {
        Kind::Boolean => argument
            .value_name("true|false")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Kind::List => argument.action(ArgAction::Append),
        Kind::Path => argument.value_hint(clap::ValueHint::AnyPath),
        Kind::Text | Kind::Integer => argument,
    }
}

fn short_help(row: &Setting) -> String {
    let first = row.lines.first().map_or("", |line| line.trim());
    // As clap's own lines: no full stop, and a switch that is off needs no words.
    let first = first.trim_end_matches('.');
    match row.fallback_text() {
        Some(text) if row.kind != Kind::Boolean => format!("{first} [default: {text}]"),
        Some(_) | None => first.to_owned(),
    }
}

/// The whole doc comment as paragraphs, then the setting's other names.
fn long_help(row: &Setting) -> String {
    let lines: Vec<&str> = row.lines.iter().map(|line| line.trim()).collect();
    let paragraphs: Vec<String> =
        lines.split(|line| line.is_empty()).map(|paragraph| paragraph.join(" ")).collect();
    let default = row.fallback_text().map(|text| format!("[default: {text}] "));
    format!(
        "{}\n\n{}[env: {}] [file: {}]",
        paragraphs.join("\n\n"),
        default.unwrap_or_default(),
        row.variable(),
        row.key
    )
}
