//! `tee policy`: whether a policy's file is one, and what it means in plain words.
//!
//! Owns: the layout. Must not: know the rules; `cocoon_attest::explain` puts them into words.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use cocoon_attest::{Explanation, Stance, explain};
use serde::Serialize;

use super::{Context, ExitStatus, Failure};
use crate::policy_source::{ReadPolicyError, read_policy};

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// Say whether a file is a valid policy, and where not; name its weak spots.
    Check {
        /// The policy.
        file: PathBuf,
        /// Fail for weak spots too.
        #[arg(long)]
        strict: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say in plain words what a policy accepts, what it denies, and where it is weak.
    Explain {
        /// The policy.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Check { file, strict, json } => check(context, &file, strict, json),
        Command::Explain { file, json } => {
            let explanation = explain(&read_policy(&file).map_err(failure)?);
            if json { context.printer.json(&explanation) } else { print(context, &explanation) }
        }
    }
}

pub(super) fn failure(error: ReadPolicyError) -> Failure {
    let (status, hint) = match &error {
        ReadPolicyError::Unreadable { .. } => (ExitStatus::Failure, None),
        ReadPolicyError::TooLarge { .. } => (ExitStatus::Invalid, None),
        ReadPolicyError::Invalid { .. } => {
            (ExitStatus::Invalid, Some("a node with this file does not start: mend it first"))
        }
    };
    Failure::new(error).with_status(status).with_hint(hint)
}

/// The outcome of a check as JSON.
#[derive(Serialize)]
struct Checked {
    valid: bool,
    /// The policy's identity; null for what is not a policy.
    policy: Option<String>,
    error: Option<String>,
    /// Where the error is, from 1 on; null where it is about the whole.
    line: Option<usize>,
    weak: Vec<WeakSpot>,
}

#[derive(Serialize)]
struct WeakSpot {
    subject: String,
    text: String,
}

fn check(context: &Context, file: &Path, strict: bool, json: bool) -> Result<(), Failure> {
    let printer = &context.printer;
    let policy = match read_policy(file) {
        Ok(policy) => policy,
        Err(error) => {
            if let (true, ReadPolicyError::Invalid { source, .. }) = (json, &error) {
                let (line, error) = (source.line(), Some(source.message().to_owned()));
                let (policy, weak) = (None, Vec::new());
                printer.json(&Checked { valid: false, policy, error, line, weak })?;
            }
            return Err(failure(error));
        }
    };
    let explanation = explain(&policy);
    let weak: Vec<_> = explanation
        .weak_spots()
        .map(|(subject, text)| WeakSpot { subject: subject.to_owned(), text: text.to_owned() })
        .collect();
    let spots = weak.len();
    if json {
        let policy = Some(explanation.policy);
        printer.json(&Checked { valid: true, policy, error: None, line: None, weak })?;
    } else {
        printer.line(format_args!("valid   {}", explanation.policy))?;
        for WeakSpot { subject, text } in &weak {
            printer.line(format_args!("weak    {subject}: {text}"))?;
        }
    }
    if strict && spots > 0 {
        let error = anyhow!("the policy is valid and has weak spots, {spots} in all");
        return Err(Failure::new(error).with_status(ExitStatus::Invalid));
    }
    Ok(())
}

fn print(context: &Context, explanation: &Explanation) -> Result<(), Failure> {
    let printer = &context.printer;
    printer.line(format_args!("policy {}", explanation.policy))?;
    for section in &explanation.sections {
        printer.line(format_args!("\n{}", section.subject))?;
        for statement in &section.statements {
            let word = match statement.stance {
                Stance::Weak => "WEAK",
                stance @ (Stance::Accepts | Stance::Denies) => stance.as_str(),
            };
            printer.line(format_args!("  {word:<7}  {}", statement.text))?;
        }
    }
    Ok(())
}
