//! How many events a second of processor time the abstract tier handles, and what a node costs.
//!
//! Owns: the scenario of the measurement. Must not: be a test; figures depend on the machine.
//!
//! `cargo run -p simnet-abstract --example scale -- NODES JOBS_PER_SECOND SECONDS`

#![expect(clippy::print_stdout, reason = "it is what an example is for")]

use std::ops::ControlFlow;

use simnet_host::{HostId, Observation, Observer, Sample};
use simnet_scenario::{Moment, Scenario, Seed};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Default)]
struct Count {
    submitted: u64,
    finished: u64,
    failed: std::collections::BTreeMap<String, u64>,
    first_token_ms: Vec<u64>,
    route_ms: Vec<u64>,
    offers: u64,
    last: Sample,
    /// Resident memory at the end of the run, in kB.
    resident: u64,
}

impl Observer for Count {
    fn end(&mut self, _: Moment, _: bool, _: &simnet_host::Ledger) {
        self.resident = status("VmRSS");
    }

    fn observe(&mut self, _: Moment, _: HostId, fact: &Observation) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "some facts are counted")]
        match fact {
            Observation::JobSubmitted { .. } => self.submitted += 1,
            Observation::JobFinished { .. } => self.finished += 1,
            Observation::JobFailed { kind, .. } => {
                *self.failed.entry(format!("{kind:?}")).or_default() += 1;
            }
            Observation::FirstToken { after, .. } => {
                self.first_token_ms.push(u64::try_from(after.as_millis()).unwrap_or(0));
            }
            Observation::RouteReady { after, .. } => {
                self.route_ms.push(u64::try_from(after.as_millis()).unwrap_or(0));
            }
            Observation::Offered { .. } => self.offers += 1,
            _ => {}
        }
    }

    fn sample(&mut self, sample: &Sample) {
        self.last = sample.clone();
    }
}

fn median(list: &mut [u64]) -> u64 {
    list.sort_unstable();
    list.get(list.len() / 2).copied().unwrap_or(0)
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// Seconds of processor time of this process.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = text.rsplit(')').next().unwrap_or_default();
    let ticks = |at: usize| rest.split_whitespace().nth(at).and_then(|it| it.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument =
        |at: usize, usual: &str| arguments.get(at).cloned().unwrap_or_else(|| usual.to_owned());
    let (nodes, rate, seconds) = (argument(0, "10000"), argument(1, "100"), argument(2, "60"));
    let text = format!(
        "tier = \"abstract\"\nduration = \"{seconds} s\"\nstart_over = \"5 s\"\n[population]\n\
         nodes = {nodes}\n[demand]\nrate = \"{rate} /s\"\n"
    );
    let text = arguments.get(3).map_or(Ok(text), std::fs::read_to_string)?;
    let scenario = Scenario::parse("scale", &text)?;
    let mut count = Count::default();
    let begun = cpu();
    let mut first = 0.0;
    let outcome = simnet_abstract::run(&scenario, Seed(1), &mut count, &mut |_| {
        if first == 0.0 {
            first = cpu();
        }
        ControlFlow::Continue(())
    })?;
    let (ended, nodes) = (cpu(), u64::from(scenario.population.nodes));
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let per_second = outcome.events as f64 / (ended - begun);
    println!(
        "events {} in {:.2} s of CPU (of which {:.2} s to begin)",
        outcome.events,
        ended - begun,
        first - begun
    );
    println!("{per_second:.0} events a CPU second");
    println!(
        "RSS at the end {} kB, peak {} kB: {} bytes a node",
        status("VmRSS"),
        status("VmHWM"),
        status("VmRSS") * 1024 / nodes
    );
    println!("jobs {} finished {} failed {:?}", count.submitted, count.finished, count.failed);
    println!(
        "first token p50 {} ms, route ready p50 {} ms of {}, offers {}",
        median(&mut count.first_token_ms),
        median(&mut count.route_ms),
        count.route_ms.len(),
        count.offers
    );
    println!("{:?}", count.last);
    println!(
        "trace {}",
        outcome.trace.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    );
    Ok(())
}
