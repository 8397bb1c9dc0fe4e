//! `simnet replay`: a run again, up to a moment or step by step; or a trace as a list.
//!
//! Owns: what is shown of a run that is seen again. Must not: need anything but the result's own
//! files: the scenario and the seed in it give the same run.

mod command;
mod facts;
mod once;
mod sheet;
mod show;
mod stepper;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use simnet_core::NodeIndex;
use simnet_core::trace::Reader;
use simnet_host::{HostId, NodeState, Observer, Outcome, Progress};
use simnet_report::{Results, load};
use simnet_scenario::quantity::Span;
use simnet_scenario::{Moment, Scenario, Seed};

use crate::args::Replay;
use crate::exit::Exit;
use crate::{identity, printer, tier};
use facts::Fact;
use once::Once;
use stepper::Stepper;

/// Runs the command.
pub(crate) fn run(args: &Replay) -> Result<Exit> {
    let until = match &args.until {
        Some(text) => Some(Moment::START.after(text.parse::<Span>()?.duration())),
        None => None,
    };
    if args.state && args.node.is_none() {
        bail!("whose state? Add `--node NUMBER`, or walk through the run with `--step`");
    }
    if args.trace.is_file() {
        if args.state || args.step || args.json {
            bail!(
                "a trace is a list of events; `--state`, `--step` and `--json` need a run's folder"
            );
        }
        return list(&args.trace, until, args.node, args.last);
    }
    let recorded = Recorded::load(&args.trace, args.node)?;
    if args.step { step(args, &recorded, until) } else { once(args, &recorded, until) }
}

/// A run that is to be seen again.
#[derive(Debug)]
struct Recorded {
    results: Results,
    scenario: Scenario,
    end: Moment,
}

impl Recorded {
    fn load(folder: &Path, node: Option<u32>) -> Result<Self> {
        let results = load(folder)?;
        let about = &results.about;
        let scenario = Scenario::parse("result.json: scenario_text", &about.scenario_text)?;
        if !scenario.demand.trace.is_empty() {
            bail!("a recorded demand is not in a result; run the scenario itself again");
        }
        if about.commit != identity::COMMIT {
            let (theirs, ours) = (&about.commit, identity::COMMIT);
            printer::note(&format!("made by {theirs}, run again by {ours}: it may differ"));
        }
        let hosts = scenario.population.nodes;
        if node.is_some_and(|it| it >= hosts) {
            bail!("there is no such node; the run has {hosts}, counted from 0");
        }
        let end = Moment::START.after(scenario.duration.duration());
        Ok(Self { results, scenario, end })
    }

    /// Runs it with this observer.
    fn again<O: Observer + Send>(&self, mut observer: O) -> Result<(Outcome, O)> {
        let seed = Seed(self.results.about.seed);
        let work = || -> Result<(Outcome, O)> {
            let mut control = |_: Progress| ControlFlow::Continue(());
            let outcome = tier::run(&self.scenario, seed, &mut observer, &mut control)?;
            Ok((outcome, observer))
        };
        tier::on_its_thread(work)?
    }

    /// Says whether a run that was seen again to its end was the same as then.
    fn judge(&self, outcome: &Outcome) -> Exit {
        let ending = &self.results.ending;
        if outcome.interrupted || ending.interrupted {
            return Exit::Done;
        }
        let trace = hex::encode(outcome.trace);
        if trace != ending.trace {
            printer::note(&format!("the trace differs: {trace} now, {} then", ending.trace));
            return Exit::Failed;
        }
        printer::note("the trace is the same as then");
        Exit::Done
    }
}

/// One look.
fn once(args: &Replay, recorded: &Recorded, until: Option<Moment>) -> Result<Exit> {
    let until = until.unwrap_or(recorded.end).min(recorded.end);
    let node = args.node.map(HostId);
    let look = node.filter(|_| args.state);
    let once = Once::new(&recorded.scenario, node, until, args.last, look);
    let (outcome, once) = recorded.again(once)?;
    if args.json {
        let facts: Vec<_> = once.facts.kept().map(Fact::for_programs).collect();
        let state = once.state.as_ref().map_or(Value::Null, |it| show::sheet(it).for_programs());
        let (at, node) = (sheet::seconds(until), args.node);
        let whole = json!({
            "at_s": at, "node": node, "stated": once.facts.stated(), "facts": facts, "state": state
        });
        printer::out(&whole.to_string());
    } else {
        once.facts.kept().for_each(|fact| printer::out(&fact.to_string()));
        if let Some(state) = &once.state {
            let all = (!args.all).then_some("--all");
            printer::out(&format!("\n{}", headed(state, all)));
        }
    }
    let who = args.node.map_or_else(|| "all nodes".to_owned(), |it| format!("node {it}"));
    let (shown, stated) = (once.facts.kept().count(), once.facts.stated());
    printer::note(&format!("{who} up to {until}: the last {shown} of {stated} facts"));
    Ok(recorded.judge(&outcome))
}

/// Step by step.
fn step(args: &Replay, recorded: &Recorded, until: Option<Moment>) -> Result<Exit> {
    let start = until.unwrap_or(Moment::START);
    let (node, run) = (args.node.map(HostId), args.trace.display().to_string());
    printer::note("`help` lists the commands");
    let stepper = Stepper::new(&recorded.scenario, run, node, start, recorded.end);
    let (outcome, _) = recorded.again(stepper)?;
    Ok(recorded.judge(&outcome))
}

/// A node's state for people, under its name and the moment.
fn headed(state: &NodeState, all: Option<&str>) -> String {
    let (host, at) = (state.identity.host.0, state.at);
    format!("node {host} at {at}\n\n{}", show::sheet(state).for_people(all))
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
