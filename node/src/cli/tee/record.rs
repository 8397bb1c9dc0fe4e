//! `tee record`: evidence of this machine in a file, and the policy's entry for it.
//!
//! Owns: the order of the steps, and what is printed. Must not: claim that anything was verified.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use cocoon_attest::collateral::Refreshed;
use cocoon_attest::evidence_file::{EvidenceFile, Recorded};
use cocoon_attest::{EndorsementShelf, Tee, claimed_measurements, policy_entry};
use cocoon_protocol::attest::Evidence;
use cocoon_protocol::units::Timestamp;

use super::super::output::utc;
use super::super::{Context, Failure};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{AttesterChoice, Config};
use crate::data_folder::DataFolder;
use crate::endorsements::look;
use crate::start::evidence;

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
    let (nonce, evidence, endorsements) = runtime.block_on(make(&config, &folder, now))?;
    let made = EvidenceFile {
        made_at: now,
        evidence,
        endorsements,
        gpus: Vec::new(),
        record: Some(Recorded { nonce, configuration: NO_CONFIGURATION }),
        made_by: concat!("cocoon-node ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let text = made.to_json().map_err(Failure::new)?;
    std::fs::write(&arguments.file, text)
        .with_context(|| format!("cannot write `{}`", arguments.file.display()))
        .map_err(Failure::new)?;
    let measured = claimed_measurements(&made.evidence);
    let measured = measured.ok_or_else(|| Failure::new(anyhow!("the evidence has no form")))?;
    let name = arguments.name.clone().unwrap_or_else(|| format!("recorded {}", utc(now)));
    context.printer.bytes(policy_entry(&name, &measured).as_bytes())?;
    context.printer.note(format_args!(
        "wrote {} to {}; nothing is verified yet: `cocoon-node tee verify {} --policy FILE`\n",
        made.evidence.kind(),
        arguments.file.display(),
        arguments.file.display(),
    ));
    Ok(())
}

type Made = ([u8; 32], Evidence, Bytes);

async fn make(config: &Config, folder: &DataFolder, now: Timestamp) -> Result<Made, Failure> {
    let refused = |error: evidence::EvidenceError| {
        let hint = error.hint();
        Failure::new(error).with_hint(Some(hint))
    };
    let wanted = match config.attester {
        AttesterChoice::Auto => None,
        AttesterChoice::Tdx => Some(Tee::Tdx),
        AttesterChoice::Snp => Some(Tee::Snp),
        AttesterChoice::Simulated | AttesterChoice::SimulatedSnp => {
            return simulated(config.attester, now);
        }
        AttesterChoice::Open => {
            return Err(Failure::new(anyhow!("`attester = \"open\"` makes no evidence"))
                .with_hint(Some("leave `--attester` away to record this machine's TEE")));
        }
    };
    let (tee, interface) = evidence::detected().await.map_err(|missing| {
        Failure::new(anyhow!("this machine has no TEE to record: {missing}"))
            .with_hint(Some("`cocoon-node tee detect` says what is missing, step by step"))
    })?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != tee) {
        return Err(refused(evidence::EvidenceError::OtherTee { wanted, found: tee }));
    }
    let shelf = EndorsementShelf::default();
    let attester = Arc::new(evidence::attester(tee, interface, shelf.clone()));
    let looked = look(&attester, &NO_CONFIGURATION, now)
        .await
        .map_err(|error| refused(evidence::EvidenceError::Look(error)))?;
    let mut keeper = evidence::keeper(config, folder, shelf.clone()).map_err(refused)?;
    let Refreshed { .. } = keeper
        .refresh(&looked.raw, now)
        .await
        .map_err(|error| refused(evidence::EvidenceError::Endorsements(error)))?;
    Ok((looked.nonce, looked.raw.evidence, shelf.endorsements()))
}

/// A record of the simulation, for demonstrations and tests.
#[cfg(feature = "dev-tee")]
fn simulated(choice: AttesterChoice, now: Timestamp) -> Result<Made, Failure> {
    use cocoon_attest::Attester;
    use cocoon_attest::simulated::{
        SimulatedAttester, SimulatedGuest, SimulatedSnp, SimulatedSnpGuest,
    };
    use cocoon_protocol::attest::{RecordBinding, gpu_digest};

    let attester: Box<dyn Attester> = match choice {
        AttesterChoice::SimulatedSnp => Box::new(SimulatedSnp::new(SimulatedSnpGuest::default())),
        AttesterChoice::Auto
        | AttesterChoice::Open
        | AttesterChoice::Tdx
        | AttesterChoice::Snp
        | AttesterChoice::Simulated => Box::new(SimulatedAttester::new(SimulatedGuest::default())),
    };
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| Failure::new(anyhow!("{error}")))?;
    let report_data = RecordBinding {
        kind: attester.kind(),
        nonce: &nonce,
        made_at: now,
        configuration: &NO_CONFIGURATION,
        gpu_digest: &gpu_digest(&[]),
    }
    .report_data();
    let quoted = attester.quote(&report_data, now).map_err(Failure::new)?;
    Ok((nonce, quoted.evidence, quoted.endorsements))
}

#[cfg(not(feature = "dev-tee"))]
fn simulated(_: AttesterChoice, _: Timestamp) -> Result<Made, Failure> {
    Err(Failure::new(evidence::EvidenceError::NoSimulation))
}
