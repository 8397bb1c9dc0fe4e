//! A run that is walked through: it goes on as far as it is told, stands still, and is asked.
//!
//! Owns: where it stands still next, and what is answered there.
//! Must not: change the run. Whatever reads, writes or sets a text does so on a thread beside: what
//! makes a map with random keys on the thread that simulates moves the keys of all that come after.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::sync::Arc;

use simnet_host::{BlockReport, Halted, HostId, HostSpec, Names, Observation, Observer};
use simnet_scenario::{Moment, Scenario};

use super::command::{self, Command, HELP};
use super::facts::{Fact, Facts};
use crate::printer;

/// Facts that are kept for `facts`, of all nodes: some tens of megabytes.
const KEPT: usize = 100_000;

/// How far the run is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// To this moment.
    Moment(Moment),
    /// Until so many facts more were stated.
    Facts(usize),
}

/// Walks through a run.
#[derive(Debug)]
pub(super) struct Stepper<'a> {
    scenario: &'a Scenario,
    /// What the run is called on the command line.
    run: String,
    names: Option<Names>,
    node: Option<HostId>,
    end: Moment,
    goal: Goal,
    facts: Facts,
    /// Facts that were passed on the way to the goal.
    passed: Vec<Fact>,
    /// Nobody asks any more: the run may end, or has.
    over: bool,
}

impl<'a> Stepper<'a> {
    /// Goes to `start` and asks there.
    pub(super) fn new(
        scenario: &'a Scenario,
        run: String,
        node: Option<HostId>,
        start: Moment,
        end: Moment,
    ) -> Self {
        let (goal, facts) = (Goal::Moment(start), Facts::new(KEPT));
        Self { scenario, run, names: None, node, end, goal, facts, passed: Vec::new(), over: false }
    }

    fn hear(&mut self, fact: Fact) {
        if self.over {
            return;
        }
        if let Goal::Facts(left) = &mut self.goal
            && fact.concerns(self.node)
        {
            *left = left.saturating_sub(1);
            self.passed.push(fact.clone());
        }
        self.facts.keep(fact);
    }

    fn whom(&self) -> String {
        self.node.map_or_else(|| "all nodes".to_owned(), |it| format!("node {}", it.0))
    }

    /// Says where the run stands, and what was passed on the way.
    fn arrive(&mut self, at: Moment) {
        let passed = std::mem::take(&mut self.passed);
        let (whom, end) = (self.whom(), self.end);
        aside(|| {
            for fact in &passed {
                printer::out(&fact.to_string());
            }
            printer::note(&place(at, end, &whom));
        });
    }

    /// Does what is asked; `Some` when that is to go on or to end.
    fn answer(
        &mut self,
        command: Command,
        at: Moment,
        halted: &mut dyn Halted,
    ) -> Option<ControlFlow<()>> {
        match command {
            Command::Next(_) | Command::Until(_) if at >= self.end => {
                let end = self.end;
                let over = format!(
                    "the run ends at {end}, and nothing comes after it; `state`, `facts` and \
                     `where` still tell what there is"
                );
                aside(|| printer::note(&over));
            }
            Command::Next(count) => {
                self.goal = Goal::Facts(count);
                return Some(ControlFlow::Continue(()));
            }
            Command::Until(to) if to < at => self.refuse_to_go_back(to, at),
            Command::Until(to) => {
                self.goal = Goal::Moment(to);
                return Some(ControlFlow::Continue(()));
            }
            Command::Node(node) => {
                self.node = node;
                let (whom, end) = (self.whom(), self.end);
                aside(|| printer::note(&place(at, end, &whom)));
            }
            Command::State { node, all } => self.show(node.or(self.node), all, halted),
            Command::Facts(most) => {
                let last = self.facts.last(most, self.node);
                let whom = self.whom();
                aside(|| {
                    last.iter().for_each(|fact| printer::out(&fact.to_string()));
                    if last.is_empty() {
                        printer::note(&format!("{whom}: no facts so far, or none that are kept"));
                    }
                });
            }
            Command::Where => {
                let (whom, end) = (self.whom(), self.end);
                aside(|| printer::out(&place(at, end, &whom)));
            }
            Command::Help => {
                aside(|| printer::out(HELP));
            }
            Command::Quit => return Some(ControlFlow::Break(())),
        }
        None
    }

    fn show(&self, node: Option<HostId>, all: bool, halted: &mut dyn Halted) {
        let Some((node, names)) = node.zip(self.names.as_ref()) else {
            aside(|| printer::note("of which node? `state 3` shows one, `node 3` stays with it"));
            return;
        };
        let Some(state) = halted.state(node, names) else { return };
        aside(|| {
            let hint = format!("`state {} all`", node.0);
            let hint = (!all).then_some(hint.as_str());
            printer::out(&super::headed(&state, hint));
        });
    }

    fn refuse_to_go_back(&self, to: Moment, at: Moment) {
        let node = self.node.map_or_else(String::new, |it| format!(" --node {}", it.0));
        let again = format!("simnet replay {} --step --until {to}{node}", self.run);
        let said = format!("a run cannot go back from {at} to {to}; start again with: {again}");
        aside(|| printer::note(&said));
    }
}

/// Does `work` on a thread beside this one.
fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| scope.spawn(work).join().ok())
}

fn place(at: Moment, end: Moment, whom: &str) -> String {
    let over = if at >= end { ", which is its end" } else { "" };
    format!("at {at} of {end}{over}; looking at {whom}")
}

/// The next command; the end of the input is the last one. What is unclear is told.
fn ask(hosts: u32) -> Command {
    let input = std::io::stdin();
    loop {
        if input.is_terminal() {
            let mut prompt = std::io::stderr();
            let _gone = write!(prompt, "simnet> ").and_then(|()| prompt.flush());
        }
        // What is no text is read all the same, and told to be no command.
        let mut line = Vec::new();
        if !input.lock().read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            return Command::Quit;
        }
        match command::read(&String::from_utf8_lossy(&line), hosts) {
            Ok(Some(command)) => return command,
            Ok(None) => {}
            Err(unclear) => printer::note(&unclear.to_string()),
        }
    }
}

impl Observer for Stepper<'_> {
    fn begin(&mut self, hosts: &[Arc<HostSpec>]) {
        self.names = Some(Names::of(self.scenario, hosts));
    }

    fn observe(&mut self, at: Moment, host: HostId, fact: &Observation) {
        self.hear(Fact::of(at, host, fact));
    }

    fn block(&mut self, at: Moment, block: &BlockReport<'_>) {
        Fact::of_block(at, block).for_each(|fact| self.hear(fact));
    }

    fn is_over(&self) -> bool {
        self.goal == Goal::Facts(0) && !self.over
    }

    fn halt_at(&self) -> Option<Moment> {
        match self.goal {
            _ if self.over => None,
            Goal::Moment(at) => Some(at.min(self.end)),
            // Somebody may still have a question when the run is over.
            Goal::Facts(_) => Some(self.end),
        }
    }

    fn halt(&mut self, at: Moment, halted: &mut dyn Halted) -> ControlFlow<()> {
        self.arrive(at);
        self.goal = Goal::Moment(self.end);
        let hosts = self.names.as_ref().map_or(0, Names::hosts);
        let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
        loop {
            let command = aside(|| ask(hosts)).unwrap_or(Command::Quit);
            if let Some(flow) = self.answer(command, at, halted) {
                self.over = flow.is_break();
                return flow;
            }
        }
    }
}
