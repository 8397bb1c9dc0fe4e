//! How the exact tier grows: one run of the default scenario with N nodes, and a line of figures.
//!
//! Owns: the figures of the table in `docs`. Must not: be more than a run and its sums.
//!
//! `cargo run -p simnet-exact --example scale -- 1000 60 1` (nodes, virtual seconds, seed), and after
//! these any number of `key=value`, as scenarios have them.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::time::Duration;

use simnet_host::invariant::{Bounds, Invariants};
use simnet_host::{HostId, Observation, Observer, Sample};
use simnet_scenario::{Moment, Scenario, Seed};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Default)]
struct Sums {
    submitted: u32,
    finished: u32,
    failed: BTreeMap<String, u32>,
    routes: Vec<Duration>,
    first_tokens: Vec<Duration>,
    sessions: Vec<Duration>,
    session_failures: u32,
    defects: u32,
    restarts: u32,
    last: Sample,
    most: u64,
}

impl Observer for Sums {
    fn observe(&mut self, at: Moment, host: HostId, fact: &Observation) {
        match fact {
            Observation::JobSubmitted { .. } => self.submitted += 1,
            Observation::JobFinished { .. } => self.finished += 1,
            Observation::JobFailed { kind, .. } => {
                *self.failed.entry(format!("{kind:?}")).or_default() += 1;
            }
            Observation::RouteReady { after, .. } => self.routes.push(*after),
            Observation::FirstToken { after, .. } => self.first_tokens.push(*after),
            Observation::SessionOpened { after, .. } => self.sessions.push(*after),
            Observation::SessionFailed { .. } => self.session_failures += 1,
            Observation::Started { restart: true } => self.restarts += 1,
            Observation::Defect { rule } => {
                self.defects += 1;
                eprintln!("{at} host {}: {rule}", host.0);
            }
            _ => {}
        }
    }

    fn sample(&mut self, sample: &Sample) {
        self.most = self.most.max(sample.connections);
        if std::env::var_os("SAMPLES").is_some() && sample.at.as_millis() % 5_000 == 0 {
            let now: u64 = sample.traffic.iter().map(|(_, bytes)| bytes).sum();
            let before: u64 = self.last.traffic.iter().map(|(_, bytes)| bytes).sum();
            let label = |sample: &Sample, wanted: &str| {
                sample.traffic.iter().find(|(name, _)| *name == wanted).map_or(0, |it| it.1)
            };
            let hands = label(sample, "handshake") - label(&self.last, "handshake");
            eprintln!(
                "{} {} connections, {} B/s in all, {} B/s handshakes",
                sample.at,
                sample.connections,
                now - before,
                hands
            );
        }
        self.last = sample.clone();
    }
}

fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let place = (times.len() as f64 * share) as usize;
    times.get(place.min(times.len().saturating_sub(1))).map_or(f64::NAN, |it| it.as_secs_f64())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, usual: u64| {
        arguments.get(place).and_then(|it| it.parse().ok()).unwrap_or(usual)
    };
    let (nodes, seconds, seed) = (number(0, 100), number(1, 60), number(2, 1));
    let mut changes = vec![
        ("population.nodes".to_owned(), nodes.to_string()),
        ("duration".to_owned(), format!("{seconds} s")),
    ];
    for change in arguments.iter().skip(3) {
        let (key, value) = change.split_once('=').ok_or("changes are key=value")?;
        changes.push((key.to_owned(), value.to_owned()));
    }
    let scenario = Scenario::default().with(&changes)?;
    let result = simnet_core::on_fresh_thread(|| {
        let mut sums = (Sums::default(), Invariants::new(Bounds::default()));
        let begun = simnet_core::clock::cpu();
        let mut noise = |progress: simnet_host::Progress| {
            if std::env::var_os("PROGRESS").is_some() {
                let cpu = simnet_core::clock::cpu().as_secs_f64();
                let mb = simnet_core::clock::resident() >> 20;
                eprintln!("{} {} events, {cpu:.1} s, {mb} MB", progress.at, progress.events);
            }
            ControlFlow::Continue(())
        };
        let outcome = simnet_exact::run(&scenario, Seed(seed), &mut sums, &mut noise);
        let cpu = simnet_core::clock::cpu().saturating_sub(begun);
        outcome.map(|outcome| (outcome, sums, cpu)).map_err(|error| error.to_string())
    })?;
    let (outcome, (mut sums, invariants), cpu) = result?;
    if let Some(violation) = invariants.violation() {
        println!("  {violation:#?} {:?}", invariants.counts());
    }
    let peak = simnet_core::clock::resident_peak() >> 20;
    let wire: u64 = sums.last.traffic.iter().map(|(_, bytes)| bytes).sum();
    let each = nodes * seconds;
    println!(
        "N {nodes}  cpu {:.1} s  peak {peak} MB  events {}  connections {} (most {})  jobs {}/{}  failed {:?}",
        cpu.as_secs_f64(),
        outcome.events,
        sums.last.connections,
        sums.most,
        sums.finished,
        sums.submitted,
        sums.failed,
    );
    println!(
        "  route ready p50 {:.3} p95 {:.3} s ({})  first token p50 {:.3} p99 {:.3} s  session p50 {:.3} s ({} failed)",
        quantile(&mut sums.routes, 0.5),
        quantile(&mut sums.routes, 0.95),
        sums.routes.len(),
        quantile(&mut sums.first_tokens, 0.5),
        quantile(&mut sums.first_tokens, 0.99),
        quantile(&mut sums.sessions, 0.5),
        sums.session_failures,
    );
    println!(
        "  {} B/s a node: {:?}",
        wire / each,
        sums.last
            .traffic
            .iter()
            .map(|(name, bytes)| format!("{name} {}", bytes / each))
            .collect::<Vec<_>>()
    );
    println!(
        "  defects {} restarts {}  trace {}",
        sums.defects,
        sums.restarts,
        outcome.trace.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>()
    );
    Ok(())
}
