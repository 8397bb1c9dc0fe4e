//! The commands of `replay --step`, read from a line.
//!
//! Owns: their words, and what is said of a line that is none of them. Must not: carry them out.

use std::fmt;
use std::str::FromStr as _;

use simnet_host::HostId;
use simnet_scenario::Moment;
use simnet_scenario::quantity::{QuantityError, Span};

/// Facts that one command may pass or list: what a person reads, and what fits a screen's history.
const MOST: usize = 10_000;
/// Facts that are listed where no number is given.
const SOME: usize = 10;

/// What can be said, for people.
pub(super) const HELP: &str = "\
  next [N]        go on to the next fact, or the N-th, of the node or of all
  until TIME      go on to a moment, as `until 12.5s`; nothing after it has happened then
  node N          look at node N from now on; `node all` looks at all of them
  state [N]       the state of the node, or of node N; `state N all` cuts no list
  facts [N]       the last facts up to here, 10 or N
  where           the moment, the node, and how far the run goes
  help            this list
  quit            end; so does the end of the input
A run cannot go back.";

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// On, until so many facts were stated.
    Next(usize),
    /// On to a moment.
    Until(Moment),
    /// Look at this node, or at all.
    Node(Option<HostId>),
    /// Show a node; the one that is looked at if none is named.
    State { node: Option<HostId>, all: bool },
    /// List the last facts.
    Facts(usize),
    /// Where the run is.
    Where,
    /// What can be said.
    Help,
    /// End.
    Quit,
}

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unclear {
    /// There is no such word.
    Word(String),
    /// What stands behind a word is no number of facts.
    Count { word: &'static str, text: String },
    /// What stands behind `until` is no moment, or there is nothing.
    Time(Option<QuantityError>),
    /// What stands there is no number of a node.
    Node { word: &'static str, text: String },
    /// There are not that many nodes.
    NoSuchNode { node: u64, hosts: u32 },
    /// A word stands where there should be none.
    Extra { word: &'static str, text: String },
}

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(
                f,
                "`{word}` is no command; there are next, until, node, state, facts, where, help \
                 and quit"
            ),
            Self::Count { word, text } => {
                write!(f, "`{word}` takes a number from 1 to {MOST}, as `{word} 5`, not `{text}`")
            }
            Self::Time(None) => f.write_str("`until` takes a moment of the run, as `until 12.5s`"),
            Self::Time(Some(error)) => {
                write!(f, "`until` takes a moment of the run, as `until 12.5s`: {error}")
            }
            Self::Node { word, text } if text.is_empty() => {
                write!(f, "`{word}` takes a node's number, as `{word} 3`, or `all`")
            }
            Self::Node { word, text } => {
                write!(f, "`{word}` takes a node's number, as `{word} 3`, or `all`, not `{text}`")
            }
            Self::NoSuchNode { node, hosts } => {
                let last = hosts.saturating_sub(1);
                write!(f, "there is no node {node}; the run has {hosts}, from 0 to {last}")
            }
            Self::Extra { word, text } => {
                write!(f, "`{word}` is complete without `{text}`; `help` lists what there is")
            }
        }
    }
}

impl std::error::Error for Unclear {}

/// Reads a line of a run with so many hosts; `None` for an empty one.
pub(super) fn read(line: &str, hosts: u32) -> Result<Option<Command>, Unclear> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let alone = |word, command| match rest {
        "" => Ok(Some(command)),
        text => Err(Unclear::Extra { word, text: text.to_owned() }),
    };
    match word {
        "" => Ok(None),
        "next" => count("next", rest, 1).map(|it| Some(Command::Next(it))),
        "until" => moment(rest).map(|it| Some(Command::Until(it))),
        "node" => match rest {
            "all" => Ok(Some(Command::Node(None))),
            number => node("node", number, hosts).map(|it| Some(Command::Node(Some(it)))),
        },
        "state" => state(rest, hosts).map(Some),
        "facts" => count("facts", rest, SOME).map(|it| Some(Command::Facts(it))),
        "where" => alone("where", Command::Where),
        "help" => alone("help", Command::Help),
        "quit" => alone("quit", Command::Quit),
        unknown => Err(Unclear::Word(unknown.to_owned())),
    }
}

fn count(word: &'static str, text: &str, default: usize) -> Result<usize, Unclear> {
    if text.is_empty() {
        return Ok(default);
    }
    let number = text.parse().ok().filter(|it| (1..=MOST).contains(it));
    number.ok_or_else(|| Unclear::Count { word, text: text.to_owned() })
}

fn moment(text: &str) -> Result<Moment, Unclear> {
    if text.is_empty() {
        return Err(Unclear::Time(None));
    }
    let span = Span::from_str(text).map_err(|error| Unclear::Time(Some(error)))?;
    Ok(Moment::START.after(span.duration()))
}

fn node(word: &'static str, text: &str, hosts: u32) -> Result<HostId, Unclear> {
    let unclear = |_| Unclear::Node { word, text: text.to_owned() };
    let node: u64 = text.parse().map_err(unclear)?;
    let known = u32::try_from(node).ok().filter(|it| *it < hosts);
    known.map(HostId).ok_or(Unclear::NoSuchNode { node, hosts })
}

fn state(text: &str, hosts: u32) -> Result<Command, Unclear> {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (number, all) = match (first, rest.trim()) {
        ("" | "all", "") => return Ok(Command::State { node: None, all: first == "all" }),
        (number, "") => (number, false),
        (number, "all") => (number, true),
        (_, more) => return Err(Unclear::Extra { word: "state", text: more.to_owned() }),
    };
    Ok(Command::State { node: Some(node("state", number, hosts)?), all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_read() {
        let read = |line| read(line, 20).unwrap();
        assert_eq!(read(""), None);
        assert_eq!(read("  \t"), None);
        assert_eq!(read("next"), Some(Command::Next(1)));
        assert_eq!(read("next  12 "), Some(Command::Next(12)));
        assert_eq!(read("until 12.5s"), Some(Command::Until(Moment::from_millis(12_500))));
        assert_eq!(read("until 2 min"), Some(Command::Until(Moment::from_millis(120_000))));
        assert_eq!(read("node 19"), Some(Command::Node(Some(HostId(19)))));
        assert_eq!(read("node all"), Some(Command::Node(None)));
        assert_eq!(read("state"), Some(Command::State { node: None, all: false }));
        assert_eq!(read("state all"), Some(Command::State { node: None, all: true }));
        let third = Some(HostId(3));
        assert_eq!(read("state 3"), Some(Command::State { node: third, all: false }));
        assert_eq!(read("state 3 all"), Some(Command::State { node: third, all: true }));
        assert_eq!(read("facts"), Some(Command::Facts(10)));
        assert_eq!(read("facts 3"), Some(Command::Facts(3)));
        assert_eq!(read("where"), Some(Command::Where));
        assert_eq!(read("help"), Some(Command::Help));
        assert_eq!(read("quit\n"), Some(Command::Quit));
    }

    #[test]
    fn what_is_unclear_says_what_is_allowed() {
        for (line, words) in [
            ("step", "`step` is no command; there are next, until, node, state, facts"),
            ("next x", "from 1 to 10000, as `next 5`, not `x`"),
            ("next 0", "not `0`"),
            ("next 10001", "from 1 to 10000"),
            ("next 1 2", "not `1 2`"),
            ("facts -1", "as `facts 5`, not `-1`"),
            ("until", "as `until 12.5s`"),
            ("until 5", "as `until 12.5s`: "),
            ("until 5 parsec", "ms, us, ns"),
            ("node", "`node` takes a node's number, as `node 3`, or `all`"),
            ("node me", "not `me`"),
            ("node 20", "there is no node 20; the run has 20, from 0 to 19"),
            ("state 99999999999", "there is no node 99999999999"),
            ("state 3 twice", "`state` is complete without `twice`"),
            ("quit now", "`quit` is complete without `now`"),
        ] {
            let said = read(line, 20).unwrap_err().to_string();
            assert!(said.contains(words), "{line}: {said}");
        }
    }

    #[test]
    fn help_names_every_command() {
        for word in ["next", "until", "node", "state", "facts", "where", "help", "quit"] {
            assert!(HELP.lines().any(|line| line.trim_start().starts_with(word)), "{word}");
        }
    }
}
