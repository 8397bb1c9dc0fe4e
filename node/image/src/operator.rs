//! What the machine's operator hands over unmeasured, on a disk of its own: the wallet that is paid, and prices.
//!
//! Owns: which settings these may be. Must not: take one that changes what happens to a prompt; those
//! stand on the measured command line.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::disk;

/// How the host marks the disk.
const SERIAL: &str = "cocoon-operator";
/// A page of text; more is not read.
const MOST_BYTES: u64 = 4096;
/// The line of the wallet's words, which are no flag.
const WORDS: &str = "words";
/// Settings of the node that concern the operator's money and nobody's prompt.
pub(crate) const SETTINGS: [&str; 6] = [
    "prompt-price",
    "completion-price",
    "price-minimum",
    "price-maximum",
    "settle-threshold",
    "region",
];

/// What the operator asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Operator {
    /// The wallet's 24 words.
    pub(crate) words: Option<String>,
    /// Flags for the node.
    pub(crate) flags: Vec<OsString>,
}

/// Why it is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperatorError {
    #[error("the disk `{SERIAL}` cannot be read")]
    Read(#[source] std::io::Error),
    #[error("the disk `{SERIAL}` holds no text")]
    NoText,
    #[error("line {line} on the disk `{SERIAL}` is not `KEY = VALUE`, with a key out of {WORDS}, {}", SETTINGS.join(", "))]
    Line { line: usize },
}

/// Reads the disk, if there is one.
pub(crate) fn read() -> Result<Operator, OperatorError> {
    let Some(disk) = disk::find(Path::new(disk::DISKS), SERIAL, 1) else {
        return Ok(Operator::default());
    };
    let mut content = Vec::new();
    let file = File::open(disk).map_err(OperatorError::Read)?;
    file.take(MOST_BYTES).read_to_end(&mut content).map_err(OperatorError::Read)?;
    parse(&content)
}

/// Reads the disk's content. Disks come in whole sectors; what is behind the text is zero.
pub(crate) fn parse(content: &[u8]) -> Result<Operator, OperatorError> {
    let text = content.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| OperatorError::NoText)?;
    let mut operator = Operator::default();
    for (index, line) in text.lines().enumerate() {
        let wrong = || OperatorError::Line { line: index + 1 };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(wrong)?;
        let (key, value) = (key.trim_end(), value.trim_start());
        if value.is_empty() || value.chars().any(char::is_control) {
            return Err(wrong());
        }
        if key == WORDS && operator.words.is_none() {
            operator.words = Some(value.to_owned());
        } else if SETTINGS.contains(&key) {
            operator.flags.push(format!("--{key}={value}").into());
        } else {
            return Err(wrong());
        }
    }
    Ok(operator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_and_place_may_be_set() {
        let text = "# mine\nwords = one two\n\nprompt-price = 0.02 TON\nregion=eu\n";
        let operator = parse(text.as_bytes()).unwrap();
        assert_eq!(operator.words.as_deref(), Some("one two"));
        assert_eq!(operator.flags, ["--prompt-price=0.02 TON", "--region=eu"]);
        assert_eq!(parse(b"").unwrap(), Operator::default());
    }

    #[test]
    fn what_is_behind_the_text_is_not_read_and_bytes_are_no_text() {
        let sector = [&b"region = eu\n"[..], &[0; 100], &[0xff]].concat();
        assert_eq!(parse(&sector).unwrap().flags, ["--region=eu"]);
        assert!(matches!(parse(&[0xff]), Err(OperatorError::NoText)));
    }

    #[test]
    fn everything_else_is_refused_with_its_line() {
        for bad in [
            "model = other",
            "log = trace",
            "engine = echo",
            "words",
            "words =",
            "region = a\tb",
            "words = a\nwords = b",
            "--region = eu",
        ] {
            let text = format!("# first\n{bad}");
            assert!(
                matches!(parse(text.as_bytes()), Err(OperatorError::Line { line: 2 | 3 })),
                "{bad}"
            );
        }
    }
}
