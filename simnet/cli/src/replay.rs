//! `simnet replay`: a run again, up to a moment, through the eyes of a node; or a trace as a list.
//!
//! Owns: what is shown of a run that is seen again. Must not: need anything but the result's own
//! files: the scenario and the seed in it give the same run.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use simnet_core::NodeIndex;
use simnet_core::trace::Reader;
use simnet_host::{BlockReport, HostId, Observation, Observer, Outcome, Progress};
use simnet_report::load;
use simnet_scenario::quantity::Span;
use simnet_scenario::{Moment, Scenario, Seed};

use crate::args::Replay;
use crate::exit::Exit;
use crate::{identity, printer, tier};

/// Runs the command.
pub(crate) fn run(args: &Replay) -> Result<Exit> {
    let until = match &args.until {
        Some(text) => Some(Moment::START.after(text.parse::<Span>()?.duration())),
        None => None,
    };
    if args.trace.is_file() {
        return list(&args.trace, until, args.node, args.last);
    }
    again(args, until)
}

/// What a node (or everybody) stated in a run.
#[derive(Debug)]
struct Witness {
    node: Option<HostId>,
    until: Moment,
    last: usize,
    facts: VecDeque<String>,
    stated: u64,
    over: bool,
}

impl Witness {
    fn keep(&mut self, fact: String) {
        if self.facts.len() >= self.last.max(1) {
            self.facts.pop_front();
        }
        self.facts.push_back(fact);
        self.stated += 1;
    }
}

impl Observer for Witness {
    fn observe(&mut self, at: Moment, host: HostId, fact: &Observation) {
        self.over = self.over || at > self.until;
        if !self.over && self.node.is_none_or(|it| it == host) {
            self.keep(format!("{at} host {}: {fact:?}", host.0));
        }
    }

    fn block(&mut self, at: Moment, block: &BlockReport<'_>) {
        self.over = self.over || at > self.until;
        if !self.over && self.node.is_none() {
            for fact in block.facts {
                self.keep(format!("{at} ledger: {fact:?}"));
            }
        }
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

fn again(args: &Replay, until: Option<Moment>) -> Result<Exit> {
    let results = load(&args.trace)?;
    let about = &results.about;
    let scenario = Scenario::parse("result.json: scenario_text", &about.scenario_text)?;
    if !scenario.demand.trace.is_empty() {
        bail!("a recorded demand is not in a result; run the scenario itself again");
    }
    if about.commit != identity::COMMIT {
        let (theirs, ours) = (&about.commit, identity::COMMIT);
        printer::note(&format!("made by {theirs}, run again by {ours}: it may differ"));
    }
    let end = Moment::START.after(scenario.duration.duration());
    let until = until.unwrap_or(end).min(end);
    let node = args.node.map(HostId);
    let hosts = scenario.population.nodes;
    if args.node.is_some_and(|it| it >= hosts) {
        bail!("there is no such node; the run has {hosts}, counted from 0");
    }
    let last = args.last;
    let facts = VecDeque::new();
    let mut witness = Witness { node, until, last, facts, stated: 0, over: false };
    let work = || -> Result<(Outcome, Witness)> {
        let mut control = |progress: Progress| {
            if progress.at > until { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let outcome = tier::run(&scenario, Seed(about.seed), &mut witness, &mut control)?;
        Ok((outcome, witness))
    };
    let (outcome, witness) = tier::on_its_thread(work)??;
    for fact in &witness.facts {
        printer::out(fact);
    }
    let who = args.node.map_or_else(|| "all nodes".to_owned(), |it| format!("node {it}"));
    let (shown, stated) = (witness.facts.len(), witness.stated);
    printer::note(&format!("{who} up to {until}: the last {shown} of {stated} facts"));
    let trace = hex::encode(outcome.trace);
    let whole = until == end && !results.ending.interrupted;
    if whole && trace != results.ending.trace {
        printer::note(&format!("the trace differs: {trace} now, {} then", results.ending.trace));
        return Ok(Exit::Failed);
    }
    if whole {
        printer::note("the trace is the same as then");
    }
    Ok(Exit::Done)
}

/// The last events of a trace file up to a moment.
fn list(path: &Path, until: Option<Moment>, node: Option<u32>, last: usize) -> Result<Exit> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let until = Duration::from_nanos(until.unwrap_or(Moment::NEVER).as_nanos());
    let node = node.map(NodeIndex);
    let mut events = VecDeque::new();
    for event in Reader::new(std::io::BufReader::new(file))? {
        let event = event?;
        if event.record.at > until {
            break;
        }
        if node.is_none_or(|it| event.record.node == Some(it) || event.record.peer == Some(it)) {
            if events.len() >= last.max(1) {
                events.pop_front();
            }
            events.push_back(event);
        }
    }
    for event in events {
        printer::out(&event.to_string());
    }
    Ok(Exit::Done)
}
