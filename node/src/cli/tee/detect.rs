//! `tee detect`: what this machine can prove about itself, and what is missing.
//!
//! Owns: the layout, and with `--online` the look at the vendors' services.
//! Must not: judge the machine; `cocoon_attest::detect` does.

use std::path::{Path, PathBuf};

use cocoon_attest::collateral::{Sources, reachable};
use cocoon_attest::detect::{Detection, Standing, Step, detect};
use cocoon_protocol::attest::Tier;
use serde::Serialize;

use super::super::{Context, Failure};
use crate::endorsements::Client;
#[cfg(feature = "nvml")]
use crate::start::GpuError;
#[cfg(feature = "nvml")]
use crate::start::gpus::REACHES_OTHERS;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Also try the services that endorsements come from.
    #[arg(long)]
    online: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Look below this folder instead of the machine's root.
    #[arg(long, value_name = "DIR", hide = true, default_value = "/")]
    root: PathBuf,
}

/// The answer as `--json` has it.
#[derive(Serialize)]
struct Answer<'a> {
    /// `tdx`, `snp`, or none.
    proves: Option<&'static str>,
    /// Through which interface.
    through: Option<String>,
    /// How many GPUs can be asked for evidence.
    gpus: usize,
    /// The highest tier that this can earn.
    tier: &'static str,
    steps: &'a [Step],
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let mut found = detect(&arguments.root);
    // The driver has no root to be looked at below.
    if arguments.root == Path::new("/") {
        found = found.with_gpus();
        #[cfg(feature = "nvml")]
        if REACHES_OTHERS {
            found = beside_others(found);
        }
    }
    if arguments.online {
        let config = context.load_unchecked()?;
        let sources =
            Sources { pcs: config.intel_pcs.to_string(), kds: config.amd_kds.to_string() };
        found.steps.extend(services(&sources)?);
    }
    if arguments.json {
        let proves = found.tee.map(|(tee, _)| tee.kind().as_str());
        let through = found.tee.map(|(_, interface)| interface.to_string());
        let tier = tier(&found).as_str();
        let Detection { steps, gpus, .. } = &found;
        return context.printer.json(&Answer { proves, through, gpus: *gpus, tier, steps });
    }
    for line in lines(&found) {
        context.printer.line(line)?;
    }
    Ok(())
}

/// What was found, in a build whose engine may leave these GPUs for some that nobody asks: a provider
/// offers none of them then.
#[cfg(feature = "nvml")]
fn beside_others(mut found: Detection) -> Detection {
    if found.gpus > 0 {
        let error = GpuError::OtherVendors;
        found.steps.push(Step {
            name: "GPU engine",
            standing: Standing::Lacking,
            found: error.to_string(),
            next: error.hint().to_owned(),
        });
        found.gpus = 0;
    }
    found
}

/// The tier that `--provide` would offer, if what can be asked makes evidence that holds.
const fn tier(found: &Detection) -> Tier {
    match (found.tee, found.gpus) {
        (None, _) => Tier::Open,
        (Some(_), 0) => Tier::Attested,
        (Some(_), _) => Tier::Confidential,
    }
}

fn services(sources: &Sources) -> Result<Vec<Step>, Failure> {
    let client = Client::new().map_err(Failure::new)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tried = runtime.block_on(reachable(&client, sources));
    let step = |(name, outcome): (&'static str, Result<(), _>)| match outcome {
        Ok(()) => Step {
            name,
            standing: Standing::Good,
            found: "answers".to_owned(),
            next: String::new(),
        },
        Err(error) => Step {
            name,
            standing: Standing::Lacking,
            found: format!("{error}"),
            next: "open the way out, or name a mirror (`--intel-pcs`, `--amd-kds`) or a file \
                   (`--endorsements`)"
                .to_owned(),
        },
    };
    Ok(tried.into_iter().map(step).collect())
}

fn lines(found: &Detection) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &found.steps {
        let standing = match step.standing {
            Standing::Good => "good",
            Standing::Skipped => "-",
            Standing::Lacking => "lacking",
            Standing::Missing => "MISSING",
        };
        lines.push(format!("{:<13} {standing:<8} {}", step.name, step.found));
        if !step.next.is_empty() {
            lines.push(format!("{:<13} {:<8} -> {}", "", "", step.next));
        }
    }
    lines.push(String::new());
    lines.push(match found.tee {
        Some((tee, interface)) => {
            let gpus = match found.gpus {
                0 => String::new(),
                1 => ", and its GPU can be asked".to_owned(),
                count => format!(", and its {count} GPUs can be asked"),
            };
            format!(
                "This machine can prove {tee} through {interface}{gpus}: `--provide` offers tier {}.",
                tier(found)
            )
        }
        None => "This machine can prove nothing about itself: `--provide` offers tier open, where \
                 its owner can read every prompt."
            .to_owned(),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_attest::Tee;
    use cocoon_attest::detect::Interface;

    #[test]
    fn each_step_has_a_line_and_its_next_step_another() {
        let step = |standing, next: &str| Step {
            name: "TSM reports",
            standing,
            found: "found".to_owned(),
            next: next.to_owned(),
        };
        let steps = vec![step(Standing::Missing, "do this"), step(Standing::Good, "")];
        let found = Detection { steps, tee: Some((Tee::Tdx, Interface::Tsm)), gpus: 0 };
        assert_eq!(
            lines(&found),
            [
                "TSM reports   MISSING  found",
                "                       -> do this",
                "TSM reports   good     found",
                "",
                "This machine can prove TDX through configfs-tsm: `--provide` offers tier attested.",
            ]
        );
        let said = |tee, gpus| lines(&Detection { steps: Vec::new(), tee, gpus })[1].clone();
        let tdx = Some((Tee::Tdx, Interface::Tsm));
        assert!(
            said(tdx, 1).ends_with("its GPU can be asked: `--provide` offers tier confidential.")
        );
        assert!(said(tdx, 8).contains("its 8 GPUs"));
        // GPUs without a TEE prove nothing.
        assert!(said(None, 8).contains("nothing"));
        let nothing = Detection { steps: Vec::new(), tee: None, gpus: 0 };
        assert!(lines(&nothing)[1].contains("its owner can read every prompt"));
    }
    #[cfg(feature = "nvml")]
    #[test]
    fn gpus_that_a_provider_would_refuse_are_not_promised() {
        let tee = Some((Tee::Tdx, Interface::Tsm));
        let found = beside_others(Detection { steps: Vec::new(), tee, gpus: 2 });
        assert_eq!(tier(&found), Tier::Attested);
        assert_eq!(found.steps[0].standing, Standing::Lacking);
        assert!(found.steps[0].found.contains("other vendors"));
        // Where there are none to ask, nothing is lacking.
        let none = Detection { steps: Vec::new(), tee, gpus: 0 };
        assert_eq!(beside_others(none.clone()), none);
    }
}
