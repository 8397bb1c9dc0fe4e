//! `status`: how a running node is.
//!
//! Owns: the layout. Must not: work out anything that the node did not say.

use cocoon_protocol::attest::Trust;
use cocoon_protocol::units::Timestamp;

use super::output::{Printer, roughly, short, utc, word};
use super::{Context, Failure, channel, unexpected};
use crate::clock::{Clock as _, SystemClock};
use crate::control::{AdvisoryStatus, Answer, PolicyStatus, Request, SessionStatus, Status};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, arguments: Arguments) -> Result<(), Failure> {
    let Answer::Status(status) = context.ask(Request::Status)? else {
        return Err(unexpected());
    };
    if arguments.json {
        return context.printer.json(&status);
    }
    print(&context.printer, &status, SystemClock.now())
}

fn print(printer: &Printer, status: &Status, now: Timestamp) -> Result<(), Failure> {
    let draining = if status.draining { ", finishing its jobs" } else { "" };
    printer.line(format_args!("node       {}", status.node))?;
    printer.line(format_args!(
        "program    cocoon-node {}, process {}, up {}{draining}",
        status.version,
        status.process,
        roughly(now.since(status.started)),
    ))?;
    printer.line(format_args!("roles      {}", roles(status)))?;
    if let Some(policy) = &status.policy {
        printer.line(format_args!("policy     {}", accepted(policy)))?;
        for followed in &policy.advisories {
            printer.line(format_args!("advisories {}", in_force(followed, now)))?;
        }
    }
    printer.line(format_args!("network    {}, ledger {}", word(&status.network), status.ledger))?;
    if let Some(address) = &status.ledger_listen {
        printer.line(format_args!("ledger at  http://{address}"))?;
    }
    if let Some(gateway) = &status.gateway {
        printer.line(format_args!("endpoint   http://{gateway}/v1"))?;
    }
    for address in &status.addresses {
        printer.line(format_args!("address    {address}"))?;
    }
    if let Some(pricing) = &status.pricing {
        // Parts per million as per cent, to a tenth.
        let tenths = pricing.level_per_million / 1_000;
        printer.line(format_args!(
            "prices     {}.{} % of the owner's, between {} and {} for a million completion tokens",
            tenths / 10,
            tenths % 10,
            pricing.minimum,
            pricing.maximum
        ))?;
    }
    printer.line(format_args!("peers      {}", status.peers))?;
    printer.line("")?;
    sessions(printer, status)?;
    offers(printer, status, now)?;
    channel::table(printer, &status.channels)?;
    jobs(printer, status)
}

fn roles(status: &Status) -> String {
    let tier = status.offered_tier.map_or_else(String::new, |tier| format!(" ({tier})"));
    let simulated = if status.simulated_tee { ", SIMULATED TEE: protects nothing" } else { "" };
    let least = status.minimum_tier.map_or_else(String::new, |tier| format!(" (at least {tier})"));
    match (status.provides, status.consumes) {
        (true, true) => format!("provider{tier}{simulated}; consumer{least}"),
        (true, false) => format!("provider{tier}{simulated}"),
        (false, true) => format!("consumer{least}"),
        (false, false) => "bare peer".to_owned(),
    }
}

fn accepted(policy: &PolicyStatus) -> String {
    let id = short(&policy.id);
    match policy.trust {
        Trust::Production => format!("{id}, real hardware only"),
        Trust::Dev if policy.accepts_simulated => {
            format!("{id}, ACCEPTS SIMULATED TEES: protects nothing")
        }
        Trust::Dev => format!("{id}, for tests; this program has no simulated TEE to accept"),
    }
}

fn in_force(followed: &AdvisoryStatus, now: Timestamp) -> String {
    let maintainer = short(followed.maintainer);
    let without = if followed.required { "ALL EVIDENCE IS REFUSED" } else { "not required" };
    match (followed.version, followed.expires) {
        (Some(version), Some(expires)) if now < expires => {
            format!("version {version} of {maintainer}, until {}", utc(expires))
        }
        (Some(version), _) => {
            format!("version {version} of {maintainer} HAS ENDED: {without}; it still refuses")
        }
        (None, _) => format!("none of {maintainer}: {without}"),
    }
}

fn sessions(printer: &Printer, status: &Status) -> Result<(), Failure> {
    let row = |session: &SessionStatus| {
        let simulated = if session.simulated { " (SIMULATED)" } else { "" };
        vec![short(session.node), format!("{}{simulated}", session.tier)]
    };
    let rows: Vec<_> = status.sessions.iter().map(row).collect();
    printer.table("sessions", &["NODE", "TIER"], &rows)
}

fn offers(printer: &Printer, status: &Status, now: Timestamp) -> Result<(), Failure> {
    let rows: Vec<_> = status
        .offers
        .iter()
        .map(|offer| {
            let provider = short(offer.provider);
            vec![
                if offer.own { format!("{provider} (self)") } else { provider },
                offer.name.clone(),
                offer.tier.to_string(),
                offer.prompt_price.to_string(),
                offer.completion_price.to_string(),
                format!("{} tokens", offer.context),
                roughly(offer.expires.since(now)),
            ]
        })
        .collect();
    let columns =
        ["PROVIDER", "MODEL", "TIER", "PROMPT/MILLION", "COMPLETION/MILLION", "CONTEXT", "HOLDS"];
    printer.table("offers", &columns, &rows)
}

fn jobs(printer: &Printer, status: &Status) -> Result<(), Failure> {
    let rows: Vec<_> = status
        .jobs
        .iter()
        .map(|job| {
            vec![
                short(job.job),
                if job.provided { "serving" } else { "asking" }.to_owned(),
                short(job.peer),
                format!("{} tokens", job.completion),
                job.cost.to_string(),
            ]
        })
        .collect();
    printer.table("jobs", &["JOB", "ROLE", "PEER", "COMPLETION", "COST"], &rows)
}
