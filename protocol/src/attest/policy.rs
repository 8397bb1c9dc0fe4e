//! Which evidence a consumer accepts, as its owner wrote it down.
//!
//! Owns: the policy's form, its validation, and its identity.
//! Must not: read files or be changed by anything that comes from the network.
//! Invariant: what is not listed is denied; an image is listed with all of its registers.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::attest::claims::{LONGEST_COLLATERAL_AGE, TcbStatus};
use crate::attest::measurement::Register;
use crate::attest::tier::Tier;
use crate::identity::append_length_prefixed;
use crate::units::Millis;

/// Whom a policy trusts to make hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// The vendors' roots only.
    Production,
    /// The public test root too: simulated TEEs pass. NO SECURITY; for tests and demos.
    Dev,
}

/// A policy's identity: the hash of its meaning, so that comments and spacing do not matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId([u8; 32]);

impl PolicyId {
    /// From its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = hex::encode(self.0);
        write!(f, "PolicyId({}…)", text.get(..12).unwrap_or(&text))
    }
}

/// Why a policy was refused. It is never repaired: a policy that is not understood is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Another version of the form.
    #[error("policy version {found} is not understood; this node knows version 1")]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// Revoked platforms are never trusted.
    #[error("`tcb_status` lists Revoked; revoked platforms are never trusted: remove it")]
    RevokedAllowed,
    /// No status at all would deny everything without saying so.
    #[error("`tcb_status` is empty; list at least UpToDate, or leave out [tdx] to deny TDX")]
    NoTcbStatus,
    /// An image without a machine shape.
    #[error("image `{image}` lists no rtmr0; list one value per machine shape")]
    NoMachineShape {
        /// The image's name.
        image: String,
    },
    /// Zero means that nothing was measured, and any guest on such a platform would match.
    #[error(
        "image `{image}` has a {register} of zeros, which pins nothing; use the measured value"
    )]
    ZeroRegister {
        /// The image's name.
        image: String,
        /// Which register.
        register: &'static str,
    },
    /// Two images by one name.
    #[error("image `{image}` is listed twice; give each entry a name of its own")]
    DuplicateImage {
        /// The name.
        image: String,
    },
    /// More than a policy may hold.
    #[error("the policy lists more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// A platform identity that is no 16 bytes.
    #[error("`allowed_ppid` must list platform ids of 32 hexadecimal digits")]
    BadPpid,
    /// Collateral that old says nothing about today.
    #[error("`max_collateral_age_h` must be between 1 and {} hours", LONGEST_COLLATERAL_AGE.get().div_ceil(3_600_000))]
    CollateralAge,
}

/// Images, machine shapes of one image, platforms, or advisories in a policy: generous for a person
/// who writes it, and a bound for the linear search in it.
const LIST_ENTRIES: usize = 1_024;

/// A listed guest image: every register counts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxImage {
    /// What people call it.
    pub name: String,
    /// The firmware.
    pub mrtd: Register,
    /// Firmware configuration and virtual hardware: one value per machine shape.
    pub rtmr0: Vec<Register>,
    /// The kernel.
    pub rtmr1: Register,
    /// The command line and initrd.
    pub rtmr2: Register,
    /// The node's own measurements; zero where the image extends nothing.
    pub rtmr3: Register,
    /// Must be zero unless given.
    #[serde(default, rename = "mrconfigid")]
    pub mr_config_id: Option<Register>,
    /// Must be zero unless given.
    #[serde(default, rename = "mrowner")]
    pub mr_owner: Option<Register>,
    /// Must be zero unless given.
    #[serde(default, rename = "mrownerconfig")]
    pub mr_owner_config: Option<Register>,
}

/// The rules for Intel TDX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxRules {
    /// Accepted platform standings.
    pub tcb_status: BTreeSet<TcbStatus>,
    /// Advisories that disqualify a platform whatever its standing.
    pub reject_advisories: Vec<String>,
    /// Collateral of an older evaluation is refused, even before it expires.
    pub min_tcb_evaluation_data_number: u32,
    /// Collateral issued longer ago is refused, even before it expires.
    pub max_collateral_age: Millis,
    /// Accept hyper-threading.
    pub allow_smt: bool,
    /// Accept multi-package platforms that may grow.
    pub allow_dynamic_platform: bool,
    /// Accept platforms whose keys the vendor caches.
    pub allow_cached_keys: bool,
    /// The only platforms accepted; empty for any, which is weaker.
    pub allowed_ppid: Vec<Vec<u8>>,
    /// The images accepted. **Empty denies.**
    pub images: Vec<TdxImage>,
}

/// A validated policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PolicyFile")]
pub struct Policy {
    trust: Trust,
    minimum_tier: Tier,
    tdx: Option<TdxRules>,
    id: PolicyId,
}

impl Policy {
    /// A policy of these rules. `minimum_tier` is a floor under what any request may ask for.
    ///
    /// # Errors
    /// The first rule that would weaken the policy by accident.
    pub fn new(
        trust: Trust,
        minimum_tier: Tier,
        tdx: Option<TdxRules>,
    ) -> Result<Self, PolicyError> {
        if let Some(rules) = &tdx {
            rules.validate()?;
        }
        let id = policy_id(trust, minimum_tier, tdx.as_ref());
        Ok(Self { trust, minimum_tier, tdx, id })
    }

    /// The policy of a node without a policy file: production roots, no image listed. Denies all
    /// evidence; tier `open` works when it is asked for.
    pub fn closed() -> Self {
        let (trust, minimum_tier) = (Trust::Production, Tier::Open);
        Self { trust, minimum_tier, tdx: None, id: policy_id(trust, minimum_tier, None) }
    }

    /// Whom it trusts.
    pub const fn trust(&self) -> Trust {
        self.trust
    }

    /// The lowest tier that it lets through.
    pub const fn minimum_tier(&self) -> Tier {
        self.minimum_tier
    }

    /// Its rules for TDX; without, all TDX evidence is denied.
    pub const fn tdx(&self) -> Option<&TdxRules> {
        self.tdx.as_ref()
    }

    /// Its identity.
    pub const fn id(&self) -> PolicyId {
        self.id
    }
}

impl TdxRules {
    fn validate(&self) -> Result<(), PolicyError> {
        if self.tcb_status.is_empty() {
            return Err(PolicyError::NoTcbStatus);
        }
        if self.tcb_status.contains(&TcbStatus::Revoked) {
            return Err(PolicyError::RevokedAllowed);
        }
        if self.max_collateral_age == Millis::new(0)
            || self.max_collateral_age > LONGEST_COLLATERAL_AGE
        {
            return Err(PolicyError::CollateralAge);
        }
        if self.allowed_ppid.iter().any(|ppid| ppid.len() != 16) {
            return Err(PolicyError::BadPpid);
        }
        let lists = [
            ("images", self.images.len()),
            ("platforms", self.allowed_ppid.len()),
            ("advisories", self.reject_advisories.len()),
        ];
        if let Some((what, _)) = lists.into_iter().find(|(_, length)| *length > LIST_ENTRIES) {
            return Err(PolicyError::TooMany { what, limit: LIST_ENTRIES });
        }
        let mut names = BTreeSet::new();
        for image in &self.images {
            image.validate()?;
            if !names.insert(&image.name) {
                return Err(PolicyError::DuplicateImage { image: image.name.clone() });
            }
        }
        Ok(())
    }
}

impl TdxImage {
    fn validate(&self) -> Result<(), PolicyError> {
        if self.rtmr0.is_empty() {
            return Err(PolicyError::NoMachineShape { image: self.name.clone() });
        }
        if self.rtmr0.len() > LIST_ENTRIES {
            return Err(PolicyError::TooMany { what: "machine shapes", limit: LIST_ENTRIES });
        }
        let zero = Register::ZERO;
        let pins_nothing = [
            ("mrtd", self.mrtd == zero),
            ("rtmr0", self.rtmr0.contains(&zero)),
            ("rtmr1", self.rtmr1 == zero),
            ("rtmr2", self.rtmr2 == zero),
        ];
        match pins_nothing.into_iter().find(|(_, zero)| *zero) {
            Some((register, _)) => {
                Err(PolicyError::ZeroRegister { image: self.name.clone(), register })
            }
            None => Ok(()),
        }
    }
}

/// The file's form: what a person writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    version: u32,
    trust: Trust,
    #[serde(default = "no_floor")]
    minimum_tier: Tier,
    #[serde(default)]
    tdx: Option<TdxFile>,
}

const fn no_floor() -> Tier {
    Tier::Open
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TdxFile {
    tcb_status: BTreeSet<TcbStatus>,
    #[serde(default)]
    reject_advisories: Vec<String>,
    #[serde(rename = "min_tcb_eval_data_number")]
    min_tcb_evaluation_data_number: u32,
    #[serde(rename = "max_collateral_age_h")]
    max_collateral_age_hours: u64,
    #[serde(default)]
    allow_smt: bool,
    #[serde(default)]
    allow_dynamic_platform: bool,
    #[serde(default)]
    allow_cached_keys: bool,
    #[serde(default)]
    allowed_ppid: Vec<String>,
    #[serde(default)]
    image: Vec<TdxImage>,
}

impl TryFrom<PolicyFile> for Policy {
    type Error = PolicyError;

    fn try_from(file: PolicyFile) -> Result<Self, PolicyError> {
        if file.version != 1 {
            return Err(PolicyError::Version { found: file.version });
        }
        let tdx = file.tdx.map(TdxRules::try_from).transpose()?;
        Self::new(file.trust, file.minimum_tier, tdx)
    }
}

impl TryFrom<TdxFile> for TdxRules {
    type Error = PolicyError;

    fn try_from(file: TdxFile) -> Result<Self, PolicyError> {
        let allowed_ppid: Result<Vec<_>, _> = file.allowed_ppid.iter().map(hex::decode).collect();
        Ok(Self {
            tcb_status: file.tcb_status,
            reject_advisories: file.reject_advisories,
            min_tcb_evaluation_data_number: file.min_tcb_evaluation_data_number,
            max_collateral_age: Millis::from_secs(
                file.max_collateral_age_hours.saturating_mul(3600),
            ),
            allow_smt: file.allow_smt,
            allow_dynamic_platform: file.allow_dynamic_platform,
            allow_cached_keys: file.allow_cached_keys,
            allowed_ppid: allowed_ppid.map_err(|_| PolicyError::BadPpid)?,
            images: file.image,
        })
    }
}

/// SHA-256 over every rule in a fixed order, each length-prefixed and each list with its length.
fn policy_id(trust: Trust, minimum_tier: Tier, tdx: Option<&TdxRules>) -> PolicyId {
    let mut input = Vec::new();
    append_length_prefixed(&mut input, b"cocoon-node/tee/policy/v1");
    input.push(match trust {
        Trust::Production => 0,
        Trust::Dev => 1,
    });
    append_length_prefixed(&mut input, minimum_tier.as_str().as_bytes());
    if let Some(rules) = tdx {
        append_rules(&mut input, rules);
    }
    PolicyId(Sha256::digest(&input).into())
}

fn append_rules(input: &mut Vec<u8>, rules: &TdxRules) {
    append_list(input, rules.tcb_status.iter().map(|status| status.as_str().as_bytes()));
    append_list(input, rules.reject_advisories.iter().map(String::as_bytes));
    append_list(input, rules.allowed_ppid.iter().map(Vec::as_slice));
    input.extend_from_slice(&rules.min_tcb_evaluation_data_number.to_be_bytes());
    input.extend_from_slice(&rules.max_collateral_age.get().to_be_bytes());
    for flag in [rules.allow_smt, rules.allow_dynamic_platform, rules.allow_cached_keys] {
        input.push(u8::from(flag));
    }
    for image in &rules.images {
        append_length_prefixed(input, image.name.as_bytes());
        append_list(input, image.rtmr0.iter().map(|register| &register.as_bytes()[..]));
        let registers = [
            Some(image.mrtd),
            Some(image.rtmr1),
            Some(image.rtmr2),
            Some(image.rtmr3),
            image.mr_config_id,
            image.mr_owner,
            image.mr_owner_config,
        ];
        for register in registers {
            input.extend_from_slice(register.unwrap_or(Register::ZERO).as_bytes());
        }
    }
}

fn append_list<'a>(input: &mut Vec<u8>, items: impl ExactSizeIterator<Item = &'a [u8]>) {
    let length = u32::try_from(items.len()).unwrap_or(u32::MAX);
    input.extend_from_slice(&length.to_be_bytes());
    for item in items {
        append_length_prefixed(input, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn file() -> Value {
        let register = |byte: u8| hex::encode([byte; 48]);
        json!({
            "version": 1,
            "trust": "production",
            "tdx": {
                "tcb_status": ["UpToDate", "SWHardeningNeeded"],
                "min_tcb_eval_data_number": 17,
                "max_collateral_age_h": 168,
                "allow_smt": true,
                "allowed_ppid": ["00112233445566778899aabbccddeeff"],
                "image": [{
                    "name": "cocoon-node-0.1.0",
                    "mrtd": register(1),
                    "rtmr0": [register(2), register(3)],
                    "rtmr1": register(4),
                    "rtmr2": register(5),
                    "rtmr3": register(0),
                }],
            },
        })
    }

    fn parse(file: Value) -> Result<Policy, String> {
        serde_json::from_value(file).map_err(|error| error.to_string())
    }

    /// The file with the value at `path` replaced, or removed by `Null`.
    fn with(path: &str, value: Value) -> Value {
        let mut file = file();
        let (parent, key) = path.rsplit_once('/').unwrap();
        let parent = file.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            parent.remove(key);
        } else {
            parent.insert(key.to_owned(), value);
        }
        file
    }

    #[test]
    fn a_whole_policy_is_understood() {
        let policy = parse(file()).unwrap();
        assert_eq!(policy.trust(), Trust::Production);
        assert_eq!(policy.minimum_tier(), Tier::Open);
        let rules = policy.tdx().unwrap();
        assert_eq!(rules.max_collateral_age, Millis::from_secs(168 * 3600));
        assert!(rules.allow_smt && !rules.allow_cached_keys);
        assert_eq!(rules.images[0].rtmr0.len(), 2);
        assert_eq!(rules.allowed_ppid[0].len(), 16);
    }

    #[test]
    fn mistakes_are_refused_and_named() {
        let zeros = json!(hex::encode([0; 48]));
        let image = file().pointer("/tdx/image/0").unwrap().clone();
        let cases = [
            ("/version", json!(2), "version 2"),
            ("/version", Value::Null, "missing field `version`"),
            ("/trust", json!("some"), "unknown variant `some`"),
            ("/trust", Value::Null, "missing field `trust`"),
            ("/snp", json!({}), "unknown field `snp`"),
            ("/tdx/tcb_statuses", json!([]), "unknown field `tcb_statuses`"),
            ("/tdx/tcb_status", json!(["Revoked"]), "lists Revoked"),
            ("/tdx/tcb_status", json!([]), "is empty"),
            ("/tdx/tcb_status", json!(["Fine"]), "unknown variant `Fine`"),
            ("/tdx/max_collateral_age_h", json!(0), "between 1 and 8784"),
            ("/tdx/max_collateral_age_h", json!(u64::MAX), "between 1 and 8784"),
            ("/tdx/min_tcb_eval_data_number", Value::Null, "missing field"),
            ("/tdx/allowed_ppid", json!(["00"]), "32 hexadecimal digits"),
            ("/tdx/allowed_ppid", json!(["zz"]), "32 hexadecimal digits"),
            ("/tdx/image", json!([image, image]), "listed twice"),
            ("/tdx/image/0/mrtd", json!("abc"), "96 hexadecimal digits"),
            ("/tdx/image/0/mrtd", zeros.clone(), "mrtd of zeros"),
            ("/tdx/image/0/rtmr0", json!([zeros]), "rtmr0 of zeros"),
            ("/tdx/image/0/rtmr0", json!([]), "lists no rtmr0"),
            ("/tdx/image/0/rtmr1", zeros.clone(), "rtmr1 of zeros"),
            ("/tdx/image/0/rtmr2", zeros, "rtmr2 of zeros"),
            ("/tdx/image/0/rtmr4", json!(""), "unknown field `rtmr4`"),
        ];
        for (path, value, expected) in cases {
            let error = parse(with(path, value)).expect_err(path);
            assert!(error.contains(expected), "{path}: {error}");
        }
    }

    #[test]
    fn an_image_with_a_register_left_out_is_refused() {
        for register in ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"] {
            let error = parse(with(&format!("/tdx/image/0/{register}"), Value::Null)).unwrap_err();
            assert!(error.contains(&format!("missing field `{register}`")), "{error}");
        }
    }

    #[test]
    fn every_rule_changes_the_identity_and_an_explicit_zero_does_not() {
        let base = parse(file()).unwrap().id();
        let other = json!(hex::encode([9; 48]));
        let changes = [
            ("/trust", json!("dev")),
            ("/minimum_tier", json!("attested")),
            ("/tdx/tcb_status", json!(["UpToDate"])),
            ("/tdx/reject_advisories", json!(["INTEL-SA-00001"])),
            ("/tdx/min_tcb_eval_data_number", json!(18)),
            ("/tdx/max_collateral_age_h", json!(167)),
            ("/tdx/allow_smt", json!(false)),
            ("/tdx/allow_dynamic_platform", json!(true)),
            ("/tdx/allow_cached_keys", json!(true)),
            ("/tdx/allowed_ppid", json!([])),
            ("/tdx/image/0/name", json!("other")),
            ("/tdx/image/0/mrtd", other.clone()),
            ("/tdx/image/0/rtmr0", json!([other])),
            ("/tdx/image/0/rtmr1", other.clone()),
            ("/tdx/image/0/rtmr2", other.clone()),
            ("/tdx/image/0/rtmr3", other.clone()),
            ("/tdx/image/0/mrconfigid", other.clone()),
            ("/tdx/image/0/mrowner", other.clone()),
            ("/tdx/image/0/mrownerconfig", other),
            ("/tdx", Value::Null),
        ];
        let mut ids = BTreeSet::from([base]);
        for (path, value) in changes {
            assert!(ids.insert(parse(with(path, value)).unwrap().id()), "{path}");
        }
        let zero = with("/tdx/image/0/mrowner", json!(hex::encode([0; 48])));
        assert_eq!(parse(zero).unwrap().id(), base);
    }

    #[test]
    fn golden_identity_of_the_closed_policy() {
        assert_eq!(Policy::closed(), parse(json!({"version": 1, "trust": "production"})).unwrap());
        assert_eq!(
            Policy::closed().id().to_string(),
            "5384cbaed58c6d00fb554ade49347252e225bd98d97e9fd285b39574e7b42d11"
        );
    }
}
