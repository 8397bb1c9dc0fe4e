//! `tee verify`: whether a piece of evidence would pass a policy, check by check.
//!
//! Owns: reading the files, and the layout of the verdict.
//! Must not: check anything; the verifier of sessions does, and says what it found.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use cocoon_attest::evidence_file::{EVIDENCE_FILE_BYTES, EvidenceFile};
use cocoon_attest::{
    Appraiser, Check, FileAppraisal, FileExamination, GpuExamination, Standing, parse_instant,
};
use cocoon_protocol::attest::{Evidence, EvidenceKind, GpuEvidence, Policy, Tier};
use cocoon_protocol::units::Timestamp;
use serde::Serialize;

use super::policy::failure;
use super::{Context, ExitStatus, Failure};
use crate::cli::output::{Printer, utc};
use crate::clock::{Clock as _, SystemClock};
use crate::policy_source::read_policy;

/// Length of a SEV-SNP report; quotes of TDX have others.
const SNP_REPORT_BYTES: usize = 1184;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// A file that `tee record` wrote, or a bare quote or report with `--collateral`.
    file: PathBuf,
    /// What vouches for a bare quote: TDX collateral as JSON, or what travels with a SEV-SNP report.
    #[arg(long, value_name = "FILE")]
    collateral: Option<PathBuf>,
    /// Kind of a bare quote: tdx, snp, simulated-tdx, or simulated-snp; by default by its length.
    #[arg(long)]
    kind: Option<String>,
    /// Judge as if it were this time: `2025-06-20T10:16:03Z`, or seconds since 1970.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), Failure> {
    let policy = policy(context)?;
    let now = match &arguments.at {
        None => SystemClock.now(),
        Some(text) => parse_instant(text).ok_or_else(|| {
            usage("`--at` wants a time like `2025-06-20T10:16:03Z`, or seconds since 1970")
        })?,
    };
    let file = evidence(arguments)?;
    let id = policy.id().to_string();
    let examination = Appraiser::new(policy).examine_file(&file, now);
    if arguments.json {
        context.printer.json(&Shown::of(&examination, &file, id, now))?;
    } else {
        print(&context.printer, &examination, &file, &id, now)?;
    }
    match examination.outcome {
        Ok(_) => Ok(()),
        Err(refusal) => {
            let error = anyhow!(refusal).context("the policy refuses this evidence");
            Err(Failure::new(error).with_status(ExitStatus::Invalid))
        }
    }
}

fn usage(text: &'static str) -> Failure {
    Failure::new(anyhow!(text)).with_status(ExitStatus::Usage)
}

fn policy(context: &Context) -> Result<Policy, Failure> {
    match context.load_unchecked()?.policy {
        Some(path) => read_policy(&path).map_err(failure),
        None => Err(usage("no policy is named").with_hint(Some("name one with `--policy FILE`"))),
    }
}

fn evidence(arguments: &Arguments) -> Result<EvidenceFile, Failure> {
    let bytes = read(&arguments.file)?;
    let json = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if json {
        if arguments.collateral.is_some() || arguments.kind.is_some() {
            return Err(usage("the file brings its own kind and endorsements; give it alone"));
        }
        return EvidenceFile::from_json(&bytes).map_err(Failure::new);
    }
    let collateral = arguments.collateral.as_deref().ok_or_else(|| {
        usage("a bare quote needs what vouches for it: name it with `--collateral FILE`")
    })?;
    let kind = match &arguments.kind {
        Some(name) => EvidenceKind::from_name(name)
            .ok_or_else(|| usage("`--kind` is tdx, snp, simulated-tdx, or simulated-snp"))?,
        None if bytes.len() == SNP_REPORT_BYTES => EvidenceKind::Snp,
        None => EvidenceKind::Tdx,
    };
    let length = bytes.len();
    let evidence = Evidence::new(kind, bytes.into())
        .ok_or_else(|| Failure::new(anyhow!("{length} bytes are no evidence of kind {kind}")))?;
    Ok(EvidenceFile {
        made_at: Timestamp::from_unix_secs(0),
        evidence,
        endorsements: read(collateral)?.into(),
        gpus: Vec::new(),
        record: None,
        made_by: String::new(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let about = |error: std::io::Error| {
        Failure::new(anyhow!(error).context(format!("cannot read {}", path.display())))
    };
    let limit = u64::try_from(EVIDENCE_FILE_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    // One byte more than is legal, so that what is too long is refused and not cut.
    let mut file = File::open(path).map_err(about)?.take(limit.saturating_add(1));
    file.read_to_end(&mut bytes).map_err(about)?;
    Ok(bytes)
}

fn print(
    printer: &Printer,
    examination: &FileExamination,
    file: &EvidenceFile,
    policy: &str,
    now: Timestamp,
) -> Result<(), Failure> {
    let (kind, length) = (file.evidence.kind(), file.evidence.quote().len());
    let label = |simulated| if simulated { " (SIMULATED: protects nothing)" } else { "" };
    let simulated = label(kind.is_simulated());
    printer.line(format_args!("evidence  {kind}{simulated}, {length} bytes"))?;
    printer.line(format_args!("policy    {policy}"))?;
    printer.line(format_args!("time      {}", utc(now)))?;
    checks(printer, &examination.guest.checks)?;
    for (number, (gpu, evidence)) in examination.gpus.iter().zip(&file.gpus).enumerate() {
        let GpuEvidence { kind, report, chain } = evidence;
        let simulated = label(kind.is_simulated());
        let (report, chain) = (report.len(), chain.len());
        printer.line(format_args!(
            "gpu {number}     {kind}{simulated}, report of {report} bytes, certificates of {chain}"
        ))?;
        checks(printer, &gpu.checks)?;
    }
    match &examination.outcome {
        Ok(found) => {
            if let Some(less) = less(found, &examination.gpus) {
                printer.line(format_args!("gpus      {less}"))?;
            }
            printer.line(format_args!(
                "verdict   accepted{simulated}: tier {}, image `{}`, until {}",
                found.tier,
                found.image,
                utc(found.expires)
            ))
        }
        Err(refusal) => printer.line(format_args!("verdict   refused: {refusal}")),
    }
}

/// Why accepted GPUs did not earn their tier.
fn less(found: &FileAppraisal, gpus: &[GpuExamination]) -> Option<&'static str> {
    if gpus.is_empty() || found.tier == Tier::Confidential {
        None
    } else if found.gpus_bound {
        Some("genuine, and known by their versions alone: `confidential` needs golden values")
    } else {
        Some("genuine, and nothing says that this guest asked them: they earn no tier")
    }
}

fn checks(printer: &Printer, checks: &[Check]) -> Result<(), Failure> {
    for check in checks {
        let standing = match check.standing {
            Standing::Passed => "pass",
            Standing::Failed => "FAIL",
            Standing::NotReached => "not reached",
            Standing::NotChecked => "not checked",
        };
        printer.line(format_args!("  {standing:<11}  {}", check.check))?;
        if check.standing != Standing::NotReached {
            values(printer, check)?;
        }
    }
    Ok(())
}

fn values(printer: &Printer, check: &Check) -> Result<(), Failure> {
    let values = [("found", &check.found), ("wanted", &check.wanted), ("why", &check.reason)];
    for (name, value) in values {
        for line in value.iter().flat_map(|value| value.lines()) {
            printer.line(format_args!("               {name:<6}  {line}"))?;
        }
    }
    Ok(())
}

/// A verdict as JSON shows it.
#[derive(Serialize)]
struct Shown<'a> {
    accepted: bool,
    kind: &'static str,
    simulated: bool,
    policy: String,
    judged_at: u64,
    tier: &'static str,
    image: Option<&'a str>,
    expires: Option<u64>,
    reason: Option<String>,
    /// The guest's.
    checks: &'a [Check],
    gpus: Vec<ShownGpu<'a>>,
}

/// One GPU in a verdict.
#[derive(Serialize)]
struct ShownGpu<'a> {
    accepted: bool,
    kind: &'static str,
    /// How well the policy knows it.
    standing: Option<&'static str>,
    reason: Option<String>,
    checks: &'a [Check],
}

impl<'a> ShownGpu<'a> {
    fn of(examination: &'a GpuExamination) -> Self {
        let found = examination.outcome.as_ref();
        Self {
            accepted: found.is_ok(),
            kind: examination.kind.as_str(),
            standing: found.ok().map(|gpu| gpu.standing.as_str()),
            reason: found.err().map(ToString::to_string),
            checks: &examination.checks,
        }
    }
}

impl<'a> Shown<'a> {
    fn of(
        examination: &'a FileExamination,
        file: &EvidenceFile,
        policy: String,
        now: Timestamp,
    ) -> Self {
        let found = examination.outcome.as_ref();
        let gpus_simulated = file.gpus.iter().any(|gpu| gpu.kind.is_simulated());
        Self {
            accepted: found.is_ok(),
            kind: file.evidence.kind().as_str(),
            simulated: file.evidence.kind().is_simulated() || gpus_simulated,
            policy,
            judged_at: now.as_unix_secs(),
            tier: found.map_or(Tier::Open, |found| found.tier).as_str(),
            image: found.ok().map(|found| found.image.as_str()),
            expires: found.ok().map(|found| found.expires.as_unix_secs()),
            reason: found.err().map(ToString::to_string),
            checks: &examination.guest.checks,
            gpus: examination.gpus.iter().map(ShownGpu::of).collect(),
        }
    }
}
