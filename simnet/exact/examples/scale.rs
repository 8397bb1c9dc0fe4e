//! How the exact tier grows: one run of the default scenario with N nodes, and its figures.
//!
//! Owns: the line of the table in the documentation. Must not: be more than a run and its sums.
//!
//! `cargo run -p simnet-exact --example scale -- 1000 60 1` (nodes, virtual seconds, seed), and after
//! these any number of `key=value` as scenarios have them, such as `demand.rate="20 /s"`.

#![expect(clippy::print_stdout, reason = "its figures are its purpose")]

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use simnet_core::allocator::Sparse;
use simnet_core::clock;
use simnet_exact::measure::{Measurement, measure_with};
use simnet_host::invariant::{Bounds, Invariants};
use simnet_host::{HostId, HostSpec, Observation, Observer, Sample};
use simnet_scenario::{Moment, Scenario, Seed};

#[global_allocator]
static ALLOCATOR: Sparse<mimalloc::MiMalloc> = Sparse::new(mimalloc::MiMalloc);

/// What is added up besides the measurement.
struct Sums {
    scenario: Scenario,
    invariants: Invariants,
    failed: BTreeMap<String, u32>,
    first_tokens: Vec<Duration>,
    most_connections: u64,
}

impl Observer for Sums {
    fn begin(&mut self, hosts: &[Arc<HostSpec>]) {
        self.invariants = Invariants::new(Bounds::of(&self.scenario, hosts));
        self.invariants.begin(hosts);
    }

    fn observe(&mut self, at: Moment, host: HostId, fact: &Observation) {
        self.invariants.observe(at, host, fact);
        if let Observation::JobFailed { kind, .. } = fact {
            let count = self.failed.entry(format!("{kind:?}")).or_default();
            *count = count.saturating_add(1);
        }
        if let Observation::FirstToken { after, .. } = fact {
            self.first_tokens.push(*after);
        }
    }

    fn sample(&mut self, sample: &Sample) {
        self.most_connections = self.most_connections.max(sample.connections);
    }
}

fn scenario(arguments: &[String]) -> Result<Scenario, Box<dyn Error>> {
    let value = |place: usize, usual: &str| {
        arguments.get(place).cloned().unwrap_or_else(|| usual.to_owned())
    };
    let mut changes = vec![
        ("population.nodes".to_owned(), value(0, "100")),
        ("duration".to_owned(), format!("{} s", value(1, "60"))),
        ("seed".to_owned(), value(2, "1")),
    ];
    for change in arguments.iter().skip(3) {
        let (key, value) = change.split_once('=').ok_or("changes are key=value")?;
        changes.push((key.to_owned(), value.to_owned()));
    }
    Ok(Scenario::default().with(&changes)?)
}

fn print(measured: &Measurement, sums: &mut Sums, cpu: Duration) {
    let decile = |of: &[f64], place: usize| of.get(place).copied().unwrap_or(f64::NAN);
    sums.first_tokens.sort_unstable();
    let middle = sums.first_tokens.get(sums.first_tokens.len() / 2).copied().unwrap_or_default();
    let (finished, submitted) = measured.jobs;
    println!(
        "nodes {}  cpu {:.1} s  peak {} MiB  events {}",
        measured.nodes,
        cpu.as_secs_f64(),
        clock::resident_peak() >> 20,
        measured.outcome.map_or(0, |outcome| outcome.events)
    );
    println!(
        "  jobs {finished} of {submitted}, failed {:?}, first token p50 {:.2} s",
        sums.failed,
        middle.as_secs_f64()
    );
    println!(
        "  route ready p50 {:.0} p90 {:.0} ms, look-up p50 {:.0} ms, {:.1} found, contact {:.2} rtt, dial {:.2} rtt",
        decile(&measured.route_ready_ms, 5),
        decile(&measured.route_ready_ms, 9),
        decile(&measured.look_up_ms, 5),
        measured.found,
        measured.contact_round_trips.get(5).copied().unwrap_or(0.0),
        measured.dial_round_trips
    );
    let rates = &measured.bytes_per_second;
    println!(
        "  connections {:.1} a node (most {}), warm {:.2}, {:.0} B/s a node: {rates:.0?}",
        measured.connections,
        sums.most_connections,
        measured.warm,
        rates.values().sum::<f64>()
    );
    if let Some(outcome) = measured.outcome {
        println!("  trace {:x?}", outcome.trace.first_chunk::<4>());
    }
    println!("  violations {:?}", sums.invariants.counts());
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let scenario = scenario(&arguments)?;
    let seed = Seed(scenario.seed);
    simnet_core::on_fresh_thread(|| {
        let mut sums = Sums {
            scenario: scenario.clone(),
            invariants: Invariants::new(Bounds::default()),
            failed: BTreeMap::new(),
            first_tokens: Vec::new(),
            most_connections: 0,
        };
        let begun = clock::cpu();
        let control = &mut |_| ControlFlow::Continue(());
        let measured = measure_with(&scenario, seed, &mut sums, control)?;
        print(&measured, &mut sums, clock::cpu().saturating_sub(begun));
        Ok(())
    })?
    .map_err(|error: simnet_exact::RunError| error.into())
}
