//! `tee record`: evidence of this machine and its GPUs in a file, and the policy's entries for them.
//!
//! Owns: the order of the steps, and what is printed. Must not: claim that a policy accepts anything.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use cocoon_attest::collateral::Refreshed;
use cocoon_attest::evidence_file::{EvidenceFile, Recorded};
use cocoon_attest::{
    Attester as _, EndorsementShelf, Tee, claimed_measurements, gpu_policy_entry, policy_entry,
};
use cocoon_protocol::attest::{Evidence, EvidenceKind, GpuClaims, GpuEvidence, RecordBinding};
use cocoon_protocol::units::Timestamp;

use super::super::output::utc;
use super::super::run::{PATIENCE, to_the_end};
use super::super::{Context, Failure};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{AttesterChoice, Config, GpuAttesterChoice};
use crate::data_folder::DataFolder;
use crate::endorsements::{record_evidence, record_nonce};
use crate::start::evidence;
use crate::start::gpus::recorded;

/// Nothing is served while a record is made, so it is bound to no configuration.
const NO_CONFIGURATION: [u8; 32] = [0; 32];

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The file to write.
    file: PathBuf,
    /// Write over a file that is there.
    #[arg(long)]
    replace: bool,
    /// What the policy's entry is called; the time by default.
    #[arg(long)]
    name: Option<String>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let config = context.load_unchecked()?;
    if arguments.file.exists() && !arguments.replace {
        return Err(Failure::new(anyhow!("`{}` is there already", arguments.file.display()))
            .with_hint(Some("name another file, or give `--replace`")));
    }
    let folder = context.folder()?;
    let now = Timestamp::from_unix_secs(SystemClock.now().as_unix_secs());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (made, claims) = to_the_end(runtime, make(context, &config, &folder, now), PATIENCE)?;
    let text = made.to_json().map_err(Failure::new)?;
    std::fs::write(&arguments.file, text)
        .with_context(|| format!("cannot write `{}`", arguments.file.display()))
        .map_err(Failure::new)?;
    let measured = claimed_measurements(&made.evidence);
    let measured = measured.ok_or_else(|| Failure::new(anyhow!("the evidence has no form")))?;
    let name = arguments.name.clone().unwrap_or_else(|| format!("recorded {}", utc(now)));
    context.printer.bytes(policy_entry(&name, &measured).as_bytes())?;
    if let Some(entry) = gpu_policy_entry(&claims) {
        context.printer.bytes(format!("\n{entry}").as_bytes())?;
    }
    let gpus = match claims.len() {
        0 => String::new(),
        1 => " and one GPU".to_owned(),
        count => format!(" and {count} GPUs"),
    };
    context.printer.note(format_args!(
        "wrote {}{gpus} to {}; nothing is verified yet: `cocoon-node tee verify {} --policy FILE`\n",
        made.evidence.kind(),
        arguments.file.display(),
        arguments.file.display(),
    ));
    Ok(())
}

/// What a record is made of before its evidence.
struct Start {
    nonce: [u8; 32],
    now: Timestamp,
    gpus: Vec<GpuEvidence>,
}

impl Start {
    /// What the guest's evidence is to be bound to.
    fn binding<'a>(&'a self, kind: EvidenceKind, gpu_digest: &'a [u8; 32]) -> RecordBinding<'a> {
        let (nonce, made_at, configuration) = (&self.nonce, self.now, &NO_CONFIGURATION);
        RecordBinding { kind, nonce, made_at, configuration, gpu_digest }
    }

    fn finish(self, (evidence, endorsements): Made) -> EvidenceFile {
        let (made_at, nonce, gpus) = (self.now, self.nonce, self.gpus);
        let record = Some(Recorded { nonce, configuration: NO_CONFIGURATION });
        let made_by = concat!("cocoon-node ", env!("CARGO_PKG_VERSION")).to_owned();
        EvidenceFile { made_at, evidence, endorsements, gpus, record, made_by }
    }
}

fn refused(error: evidence::EvidenceError) -> Failure {
    let hint = error.hint();
    Failure::new(error).with_hint(Some(hint))
}

/// Evidence, and the endorsements beside it.
type Made = (Evidence, Bytes);

async fn make(
    context: &Context,
    config: &Config,
    folder: &DataFolder,
    now: Timestamp,
) -> Result<(EvidenceFile, Vec<GpuClaims>), Failure> {
    let wanted = match config.attester {
        AttesterChoice::Auto | AttesterChoice::Simulated | AttesterChoice::SimulatedSnp => None,
        AttesterChoice::Tdx => Some(Tee::Tdx),
        AttesterChoice::Snp => Some(Tee::Snp),
        AttesterChoice::Open => {
            return Err(Failure::new(anyhow!("`attester = \"open\"` makes no evidence"))
                .with_hint(Some("leave `--attester` away to record this machine's TEE")));
        }
    };
    let nonce = record_nonce().map_err(|error| refused(evidence::EvidenceError::Look(error)))?;
    if matches!(config.attester, AttesterChoice::Simulated | AttesterChoice::SimulatedSnp) {
        let (gpus, claims) = gpus(context, config, nonce, now).await?;
        let start = Start { nonce, now, gpus };
        let made = simulated(config.attester, &start)?;
        return Ok((start.finish(made), claims));
    }
    let (tee, interface) = evidence::detected().await.map_err(|missing| {
        Failure::new(anyhow!("this machine has no TEE to record: {missing}"))
            .with_hint(Some("`cocoon-node tee detect` says what is missing, step by step"))
    })?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != tee) {
        return Err(refused(evidence::EvidenceError::OtherTee { wanted, found: tee }));
    }
    // First the GPUs: the guest's evidence covers theirs.
    let (gpus, claims) = gpus(context, config, nonce, now).await?;
    let start = Start { nonce, now, gpus };
    let shelf = EndorsementShelf::default();
    let attester = Arc::new(evidence::attester(tee, interface, shelf.clone()));
    let digest = GpuEvidence::digest(&start.gpus);
    let raw = record_evidence(&attester, &start.binding(attester.kind(), &digest))
        .await
        .map_err(|error| refused(evidence::EvidenceError::Look(error)))?;
    let mut keeper = evidence::keeper(config, folder, shelf.clone()).map_err(refused)?;
    let Refreshed { .. } = keeper
        .refresh(&raw, now)
        .await
        .map_err(|error| refused(evidence::EvidenceError::Endorsements(error)))?;
    Ok((start.finish((raw.evidence, shelf.endorsements())), claims))
}

/// Evidence of the GPUs that the settings choose, and what it claims. Where nobody asked for them by
/// name, a record without them is one all the same, and says why.
async fn gpus(
    context: &Context,
    config: &Config,
    nonce: [u8; 32],
    now: Timestamp,
) -> Result<(Vec<GpuEvidence>, Vec<GpuClaims>), Failure> {
    let choice = config.gpu_attester;
    match recorded(choice, config.simulated_gpus, nonce, now).await {
        Ok(made) => Ok(made),
        Err(error) => match choice {
            GpuAttesterChoice::Nvidia | GpuAttesterChoice::Simulated => {
                Err(refused(evidence::EvidenceError::Gpus(error)))
            }
            GpuAttesterChoice::None => Ok(Default::default()),
            GpuAttesterChoice::Auto => {
                if !error.is_absence() {
                    let hint = error.hint();
                    let note = format_args!("no GPU is recorded: {error}\nhint: {hint}\n");
                    context.printer.note(note);
                }
                Ok(Default::default())
            }
        },
    }
}

/// A record of the simulation, for demonstrations and tests.
#[cfg(feature = "dev-tee")]
fn simulated(choice: AttesterChoice, start: &Start) -> Result<Made, Failure> {
    use cocoon_attest::Attester;
    use cocoon_attest::simulated::{
        SimulatedAttester, SimulatedGuest, SimulatedSnp, SimulatedSnpGuest,
    };

    let attester: Box<dyn Attester> = match choice {
        AttesterChoice::SimulatedSnp => Box::new(SimulatedSnp::new(SimulatedSnpGuest::default())),
        AttesterChoice::Auto
        | AttesterChoice::Open
        | AttesterChoice::Tdx
        | AttesterChoice::Snp
        | AttesterChoice::Simulated => Box::new(SimulatedAttester::new(SimulatedGuest::default())),
    };
    let digest = GpuEvidence::digest(&start.gpus);
    let report_data = start.binding(attester.kind(), &digest).report_data();
    let quoted = attester.quote(&report_data, start.now).map_err(Failure::new)?;
    Ok((quoted.evidence, quoted.endorsements))
}

#[cfg(not(feature = "dev-tee"))]
fn simulated(_: AttesterChoice, _: &Start) -> Result<Made, Failure> {
    Err(Failure::new(evidence::EvidenceError::NoSimulation))
}
