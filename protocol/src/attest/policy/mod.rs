//! Which evidence a consumer accepts, as its owner wrote it down.
//!
//! Owns: the policy's form, its validation, and its identity.
//! Must not: read files or be changed by anything that comes from the network.
//! Invariant: what is not listed is denied; an image is listed with all of its registers.

mod error;
mod identity;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::attest::advisories::{SUBSCRIPTIONS, Subscription};
use crate::attest::gpu::{GpuFile, GpuRules};
use crate::attest::snp::{SnpFile, SnpRules};
use crate::attest::tdx::{TdxFile, TdxRules};
use crate::attest::tier::Tier;

pub use error::PolicyError;
pub use identity::PolicyId;
pub(super) use identity::Section;
use identity::policy_id;

/// Whom a policy trusts to make hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// The vendors' roots only.
    Production,
    /// The public test root too: simulated TEEs pass. NO SECURITY; for tests and demos.
    Dev,
}

/// Images, machine shapes of one image, platforms, or advisories in a policy: generous for a person
/// who writes it, and a bound for the linear search in it.
pub(super) const LIST_ENTRIES: usize = 1_024;

/// What a policy says about each vendor's evidence. **A vendor left out is denied.**
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// For Intel TDX.
    pub tdx: Option<TdxRules>,
    /// For AMD SEV-SNP.
    pub snp: Option<SnpRules>,
    /// For GPUs, beside one of the above.
    pub gpu: Option<GpuRules>,
}

impl Rules {
    fn validate(&self) -> Result<(), PolicyError> {
        self.tdx.as_ref().map_or(Ok(()), TdxRules::validate)?;
        self.snp.as_ref().map_or(Ok(()), SnpRules::validate)?;
        self.gpu.as_ref().map_or(Ok(()), GpuRules::validate)
    }
}

/// A validated policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PolicyFile")]
pub struct Policy {
    trust: Trust,
    minimum_tier: Tier,
    rules: Rules,
    subscriptions: Vec<Subscription>,
    id: PolicyId,
}

impl Policy {
    /// A policy of these rules. `minimum_tier` is a floor under what any request may ask for.
    ///
    /// # Errors
    /// The first rule that would weaken the policy by accident.
    pub fn new(trust: Trust, minimum_tier: Tier, rules: Rules) -> Result<Self, PolicyError> {
        rules.validate()?;
        let id = policy_id(trust, minimum_tier, &rules, &[]);
        Ok(Self { trust, minimum_tier, rules, subscriptions: Vec::new(), id })
    }

    /// The same policy, following these maintainers' advisories too.
    ///
    /// # Errors
    /// A maintainer that is named twice, an empty source, or too many of them.
    pub fn following(self, subscriptions: Vec<Subscription>) -> Result<Self, PolicyError> {
        if subscriptions.len() > SUBSCRIPTIONS {
            return Err(PolicyError::TooMany { what: "maintainers", limit: SUBSCRIPTIONS });
        }
        let mut maintainers = BTreeSet::new();
        let fresh = |it: &Subscription| !it.source.is_empty() && maintainers.insert(it.maintainer);
        if !subscriptions.iter().all(fresh) {
            return Err(PolicyError::BadSubscription);
        }
        let id = policy_id(self.trust, self.minimum_tier, &self.rules, &subscriptions);
        Ok(Self { subscriptions, id, ..self })
    }

    /// The policy of a node without a policy file: production roots, no image listed. Denies all
    /// evidence; tier `open` works when it is asked for.
    pub fn closed() -> Self {
        let (trust, minimum_tier, rules) = (Trust::Production, Tier::Open, Rules::default());
        let id = policy_id(trust, minimum_tier, &rules, &[]);
        Self { trust, minimum_tier, rules, subscriptions: Vec::new(), id }
    }

    /// Whom it trusts.
    pub const fn trust(&self) -> Trust {
        self.trust
    }

    /// The lowest tier that it lets through.
    pub const fn minimum_tier(&self) -> Tier {
        self.minimum_tier
    }

    /// The tier that a session must prove where its caller accepts `minimum`: never below the policy's
    /// own, and `confidential` where the policy lets no session with evidence be anything less. Who
    /// chooses providers by a lower tier than this dials some that were never to be accepted.
    pub fn demanded(&self, minimum: Tier) -> Tier {
        let want = minimum.max(self.minimum_tier());
        let golden_only = self.gpu().is_some_and(|it| it.required && it.identity_only.is_none());
        if want == Tier::Attested && golden_only { Tier::Confidential } else { want }
    }

    /// Its rules for every vendor.
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Its rules for TDX; without, all TDX evidence is denied.
    pub const fn tdx(&self) -> Option<&TdxRules> {
        self.rules.tdx.as_ref()
    }

    /// Its rules for SEV-SNP; without, all SEV-SNP evidence is denied.
    pub const fn snp(&self) -> Option<&SnpRules> {
        self.rules.snp.as_ref()
    }

    /// Whose advisories it follows.
    pub fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    /// Its rules for GPUs; without, all GPU evidence is denied and nothing is `confidential`.
    pub const fn gpu(&self) -> Option<&GpuRules> {
        self.rules.gpu.as_ref()
    }

    /// Whether it lists any state of a GPU, without which no session can be `confidential`.
    pub fn lists_gpus(&self) -> bool {
        let lists = |rules: &GpuRules| !rules.architectures.is_empty() && !rules.golden.is_empty();
        self.gpu().is_some_and(lists)
    }

    /// Its identity.
    pub const fn id(&self) -> PolicyId {
        self.id
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
    #[serde(default)]
    snp: Option<SnpFile>,
    #[serde(default)]
    gpu: Option<GpuFile>,
    #[serde(default)]
    advisories: Vec<Subscription>,
}

const fn no_floor() -> Tier {
    Tier::Open
}

impl TryFrom<PolicyFile> for Policy {
    type Error = PolicyError;

    fn try_from(file: PolicyFile) -> Result<Self, PolicyError> {
        if file.version != 1 {
            return Err(PolicyError::Version { found: file.version });
        }
        let rules = Rules {
            tdx: file.tdx.map(TdxRules::try_from).transpose()?,
            snp: file.snp.map(SnpRules::try_from).transpose()?,
            gpu: file.gpu.map(GpuRules::try_from).transpose()?,
        };
        Self::new(file.trust, file.minimum_tier, rules)?.following(file.advisories)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::gpu::GpuIdentityOnly;
    use crate::units::Millis;
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
            ("/sgx", json!({}), "unknown field `sgx`"),
            ("/snp", json!({}), "missing field `products`"),
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
    fn a_session_must_prove_what_the_policy_makes_of_the_tier_asked_for() {
        let under = |minimum: Tier, gpu: Option<GpuRules>| {
            let rules = Rules { gpu, ..Rules::default() };
            let policy = Policy { minimum_tier: minimum, rules, ..Policy::closed() };
            [Tier::Open, Tier::Attested, Tier::Confidential].map(|asked| policy.demanded(asked))
        };
        let (open, attested, confidential) = (Tier::Open, Tier::Attested, Tier::Confidential);
        assert_eq!(under(open, None), [open, attested, confidential]);
        assert_eq!(under(attested, None), [attested, attested, confidential]);
        assert_eq!(under(confidential, None), [confidential; 3]);
        let gpu = |required, identity_only| GpuRules {
            required,
            architectures: BTreeSet::new(),
            allow_missing_fwid: false,
            revoked_keys: BTreeSet::new(),
            identity_only,
            golden: Vec::new(),
        };
        assert_eq!(under(open, Some(gpu(true, None))), [open, confidential, confidential]);
        assert_eq!(under(attested, Some(gpu(true, None))), [confidential; 3]);
        assert_eq!(under(open, Some(gpu(false, None))), [open, attested, confidential]);
        let identity = GpuIdentityOnly { drivers: BTreeSet::new(), vbios: BTreeSet::new() };
        let unlisted = gpu(true, Some(identity));
        assert_eq!(under(open, Some(unlisted)), [open, attested, confidential]);
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
