//! A maintainer's list of advisories as a file: TOML under a signature.
//!
//! Owns: the form, the signature, and what a reader remembers against being shown an older list.
//! Must not: apply a list; `attest::Advisories` does.
//!
//! ```text
//! cocoon-advisories 1
//! maintainer <64 hexadecimal digits>
//! signature <128 hexadecimal digits>
//!
//! version = 12
//! expires = "2027-02-01T00:00:00Z"
//!
//! [tdx]
//! reject_advisories = ["INTEL-SA-01234"]
//! min_tcb_eval_data_number = 19
//! reject_ppid = ["<32 hexadecimal digits>"]
//! [[tdx.withdrawn]]
//! measurement = "<64 hexadecimal digits, as the registry has it>"
//! reason = "cocoon-node 0.1.0 answers before it attests"
//!
//! [snp.min_tcb.Milan]
//! bl = 4
//! tee = 0
//! snp = 24
//! ucode = 219
//! ```
//!
//! The signature (Ed25519, `Domain::Advisories`) is over every byte after the empty line.

use cocoon_protocol::attest::{AdvisoryList, SnpAdvisories, TdxAdvisories};
use cocoon_protocol::identity::{Domain, NodeId, NodeKey};
use cocoon_protocol::units::Timestamp;
use serde::Deserialize;

use crate::parse_instant;

/// Largest file.
pub const ADVISORY_FILE_BYTES: usize = 262_144;
const FIRST_LINE: &str = "cocoon-advisories 1";

/// Why a file is not a list that can be used. What was in force stays in force.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AdvisoryFileError {
    /// No list is that long.
    #[error("the list is longer than {ADVISORY_FILE_BYTES} bytes")]
    TooLarge,
    /// Another form, or another version of it.
    #[error("the file does not begin with `{FIRST_LINE}`, maintainer and signature")]
    Form,
    /// Somebody else's list.
    #[error("the list is {found}'s; {expected}'s was wanted")]
    OtherMaintainer {
        /// Who signed.
        found: NodeId,
        /// Whom the policy names.
        expected: NodeId,
    },
    /// Changed on the way, or never signed.
    #[error("the list is not signed by its maintainer")]
    Signature,
    /// Signed, but not understood. Half a list is no list.
    #[error("the list is not understood; is this program older than the list?")]
    Content(#[source] Box<toml::de::Error>),
    /// Signed, but beyond a bound or with a date that is none.
    #[error("the list's `{field}` is not acceptable")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// A list that was in force before.
    #[error("the list is version {found}, and version {known} was seen: it is kept")]
    Older {
        /// What the file has.
        found: u64,
        /// What is remembered.
        known: u64,
    },
    /// Two lists of one version.
    #[error("the maintainer has signed two lists of version {version}: the first is kept")]
    Contradiction {
        /// Which version.
        version: u64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u64,
    expires: String,
    #[serde(default)]
    tdx: TdxAdvisories,
    #[serde(default)]
    snp: SnpAdvisories,
}

/// Signs a list's content as a maintainer.
///
/// # Errors
/// When a subscriber would not understand it.
pub fn sign_advisories(content: &str, key: &NodeKey) -> Result<String, AdvisoryFileError> {
    let content = content.trim_start();
    let list = parse(content, key.id())?;
    let signature = hex::encode(key.sign(Domain::Advisories, content.as_bytes()));
    let maintainer = list.maintainer;
    Ok(format!("{FIRST_LINE}\nmaintainer {maintainer}\nsignature {signature}\n\n{content}"))
}

/// Reads a signed list, whoever signed it.
///
/// # Errors
/// When it is not signed by whom it names, or not understood.
pub fn read_advisories(bytes: &[u8]) -> Result<AdvisoryList, AdvisoryFileError> {
    if bytes.len() > ADVISORY_FILE_BYTES {
        return Err(AdvisoryFileError::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| AdvisoryFileError::Form)?;
    let (maintainer, signature, content) = head(text).ok_or(AdvisoryFileError::Form)?;
    if !maintainer.verify(Domain::Advisories, content.as_bytes(), &signature) {
        return Err(AdvisoryFileError::Signature);
    }
    parse(content, maintainer)
}

/// Reads `bytes` as `maintainer`'s list, to follow `known`, the bytes of the list in force.
///
/// # Errors
/// As [`read_advisories`], for another maintainer's list, and for one that is not newer than what is
/// known: whoever delivers lists may not take one back. The same bytes again are no error.
pub fn read_newer_advisories(
    bytes: &[u8],
    maintainer: NodeId,
    known: Option<&[u8]>,
) -> Result<AdvisoryList, AdvisoryFileError> {
    let list = read_advisories(bytes)?;
    if list.maintainer != maintainer {
        let (found, expected) = (list.maintainer, maintainer);
        return Err(AdvisoryFileError::OtherMaintainer { found, expected });
    }
    let Some(known_bytes) = known else { return Ok(list) };
    let known = read_advisories(known_bytes)?.version;
    match list.version.cmp(&known) {
        std::cmp::Ordering::Greater => Ok(list),
        std::cmp::Ordering::Equal if bytes == known_bytes => Ok(list),
        std::cmp::Ordering::Equal => Err(AdvisoryFileError::Contradiction { version: known }),
        std::cmp::Ordering::Less => Err(AdvisoryFileError::Older { found: list.version, known }),
    }
}

fn head(text: &str) -> Option<(NodeId, [u8; 64], &str)> {
    let rest = text.strip_prefix(FIRST_LINE)?.strip_prefix("\nmaintainer ")?;
    let (maintainer, rest) = rest.split_once('\n')?;
    let (signature, content) = rest.strip_prefix("signature ")?.split_once("\n\n")?;
    let (mut key, mut bytes) = ([0; 32], [0; 64]);
    hex::decode_to_slice(maintainer, &mut key).ok()?;
    hex::decode_to_slice(signature, &mut bytes).ok()?;
    Some((NodeId::from_bytes(key), bytes, content))
}

fn parse(content: &str, maintainer: NodeId) -> Result<AdvisoryList, AdvisoryFileError> {
    let Content { version, expires, tdx, snp } =
        toml::from_str(content).map_err(|error| AdvisoryFileError::Content(Box::new(error)))?;
    let expires: Timestamp =
        parse_instant(&expires).ok_or(AdvisoryFileError::Field { field: "expires" })?;
    let list = AdvisoryList { maintainer, version, expires, tdx, snp };
    list.fault().map_or(Ok(list), |field| Err(AdvisoryFileError::Field { field }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: &str = r#"
version = 12
expires = "2027-02-01T00:00:00Z"
[tdx]
reject_advisories = ["INTEL-SA-01234"]
min_tcb_eval_data_number = 19
reject_ppid = ["00112233445566778899aabbccddeeff"]
[[tdx.withdrawn]]
measurement = "0101010101010101010101010101010101010101010101010101010101010101"
reason = "it answers before it attests"
[snp.min_tcb.Milan]
bl = 4
tee = 0
snp = 24
ucode = 219
"#;

    fn maintainer() -> NodeKey {
        NodeKey::from_secret(&[9; 32])
    }

    fn signed(content: &str) -> String {
        sign_advisories(content, &maintainer()).unwrap()
    }

    fn field(from: &str, to: &str) -> AdvisoryFileError {
        assert!(CONTENT.contains(from), "{from}");
        sign_advisories(&CONTENT.replace(from, to), &maintainer()).unwrap_err()
    }

    #[test]
    fn a_signed_list_is_read_as_it_was_written() {
        let list = read_advisories(signed(CONTENT).as_bytes()).unwrap();
        assert_eq!((list.maintainer, list.version), (maintainer().id(), 12));
        assert_eq!(list.expires, Timestamp::from_unix_secs(1_801_440_000));
        assert_eq!(list.tdx.min_tcb_eval_data_number, 19);
        assert_eq!(list.snp.min_tcb.len(), 1);
    }

    #[test]
    fn no_byte_of_a_signed_list_can_be_changed() {
        let file = signed(CONTENT).into_bytes();
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(read_advisories(&changed).is_err(), "byte {at}");
            assert!(read_advisories(&file[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn an_older_list_another_maintainers_and_a_contradiction_are_refused() {
        let (old, new) = (signed(CONTENT), signed(&CONTENT.replace("= 12", "= 13")));
        let follow = |new: &str, known: &str| {
            let known = Some(known.as_bytes());
            read_newer_advisories(new.as_bytes(), maintainer().id(), known).map(|it| it.version)
        };
        assert_eq!(follow(&new, &old), Ok(13));
        assert_eq!(follow(&old, &old), Ok(12));
        assert_eq!(follow(&old, &new), Err(AdvisoryFileError::Older { found: 12, known: 13 }));
        let other = signed(&CONTENT.replace("= 19", "= 18"));
        assert_eq!(follow(&other, &old), Err(AdvisoryFileError::Contradiction { version: 12 }));
        let somebody = NodeKey::from_secret(&[8; 32]);
        let (found, expected) = (somebody.id(), maintainer().id());
        assert_eq!(
            follow(&sign_advisories(CONTENT, &somebody).unwrap(), &old),
            Err(AdvisoryFileError::OtherMaintainer { found, expected })
        );
    }

    #[test]
    fn what_a_subscriber_would_not_understand_is_not_signed() {
        assert!(matches!(field("[tdx]", "[sgx]"), AdvisoryFileError::Content(_)));
        assert!(matches!(field("version = 12", ""), AdvisoryFileError::Content(_)));
        for (name, from, to) in [
            ("expires", "2027-02-01T00:00:00Z", "soon"),
            ("reject_ppid", "00112233445566778899aabbccddeeff", "0011"),
            ("withdrawn", "01010101", "zz010101"),
            ("withdrawn", "it answers", "it\\tanswers"),
        ] {
            assert_eq!(field(from, to), AdvisoryFileError::Field { field: name }, "{to}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert_eq!(read_advisories(CONTENT.as_bytes()), Err(AdvisoryFileError::Form));
        assert_eq!(read_advisories(&[0xff]), Err(AdvisoryFileError::Form));
        let huge = vec![b' '; ADVISORY_FILE_BYTES + 1];
        assert_eq!(read_advisories(&huge), Err(AdvisoryFileError::TooLarge));
    }
}
