//! A policy in plain words: what it lets through, what it turns away, and where it is weak.
//!
//! Owns: the words, and which choices are called weak.
//! Must not: judge evidence or read a file; it describes the rules that `attest::appraise` applies.

use cocoon_protocol::attest::{
    GpuRules, Policy, SnpRules, SnpTcb, TcbStatus, TdxRules, Tier, Trust,
};
use cocoon_protocol::units::Millis;
use serde::Serialize;

/// Collateral older than this is called weak: within it, Intel publishes a new evaluation and a
/// provider's operator has had time to fetch it.
const FRESH_COLLATERAL: Millis = Millis::from_secs(14 * 24 * 3600);
/// A revocation list older than this is called weak. AMD's own dates allow about seven months.
const FRESH_CRL: Millis = Millis::from_secs(31 * 24 * 3600);

/// What leaving out the list of machines means, with any vendor.
const ANY_MACHINE: &str = "any machine may run the image, also one whose owner attacks the hardware \
                           (TEE.fail, Battering RAM, WireTap)";

/// How a statement stands towards evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stance {
    /// Lets something through.
    Accepts,
    /// Turns something away.
    Denies,
    /// Lets through more than a careful owner would: to be changed, or to be chosen knowingly.
    Weak,
}

impl Stance {
    /// The word before the statement.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepts => "accepts",
            Self::Denies => "denies",
            Self::Weak => "weak",
        }
    }
}

/// One thing that a policy does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Statement {
    /// Which way it goes.
    pub stance: Stance,
    /// What it is about, and for a weak spot what would be stronger.
    pub text: String,
}

/// What a policy does about one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// `General`, or the vendor's technology.
    pub subject: &'static str,
    /// In the order in which the rules stand in the file.
    pub statements: Vec<Statement>,
}

impl Section {
    const fn new(subject: &'static str) -> Self {
        Self { subject, statements: Vec::new() }
    }

    fn say(&mut self, stance: Stance, text: impl Into<String>) {
        self.statements.push(Statement { stance, text: text.into() });
    }

    fn accepts(&mut self, text: impl Into<String>) {
        self.say(Stance::Accepts, text);
    }

    fn denies(&mut self, text: impl Into<String>) {
        self.say(Stance::Denies, text);
    }

    fn weak(&mut self, text: impl Into<String>) {
        self.say(Stance::Weak, text);
    }
}

/// A whole policy in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The policy's identity, as requests and verdicts name it.
    pub policy: String,
    /// One for all evidence, then one for each technology.
    pub sections: Vec<Section>,
}

impl Explanation {
    /// The weak spots, each with its subject.
    pub fn weak_spots(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.sections.iter().flat_map(|section| {
            let weak = section.statements.iter().filter(|it| it.stance == Stance::Weak);
            weak.map(|statement| (section.subject, statement.text.as_str()))
        })
    }
}

/// Puts `policy` into words.
pub fn explain(policy: &Policy) -> Explanation {
    Explanation {
        policy: policy.id().to_string(),
        sections: vec![general(policy), tdx(policy.tdx()), snp(policy.snp()), gpu(policy.gpu())],
    }
}

fn general(policy: &Policy) -> Section {
    let mut section = Section::new("General");
    match policy.trust() {
        Trust::Production => {
            section.accepts("evidence that ends at a hardware vendor's own root, and no other");
            section.denies("every simulated TEE");
        }
        Trust::Dev => section.weak(
            "`trust = \"dev\"` accepts simulated TEEs, which anybody can forge: NO SECURITY; \
             for anything but a test use `trust = \"production\"`",
        ),
    }
    match policy.minimum_tier() {
        Tier::Open => section.weak(
            "a request may ask for tier `open`, where the provider reads everything; \
             `minimum_tier = \"attested\"` forbids it for all requests",
        ),
        tier @ (Tier::Attested | Tier::Confidential) => {
            section.denies(format!("every request below tier `{tier}`, whatever it asks for"));
        }
    }
    section.denies("guests in debug mode or open to migration, without exception");
    for subscription in policy.subscriptions() {
        let maintainer = subscription.maintainer;
        section.denies(format!("whatever the advisories of {maintainer} withdraw"));
        if subscription.required {
            section.denies(format!("all evidence while no list of {maintainer} is in force"));
        } else {
            section.weak(format!(
                "without a list of {maintainer} the policy works on: whoever keeps the list away \
                 keeps what it withdraws accepted; leave out `required = false`"
            ));
        }
    }
    section
}

fn tdx(rules: Option<&TdxRules>) -> Section {
    let mut section = Section::new("Intel TDX");
    let Some(rules) = rules.filter(|rules| !rules.images.is_empty()) else {
        section.denies(if rules.is_none() {
            "everything: the policy has no [tdx]"
        } else {
            "everything: no [[tdx.image]] is listed, and an empty list denies"
        });
        return section;
    };
    for image in &rules.images {
        section.accepts(format!(
            "image `{}` on {}, when all of its registers match",
            image.name,
            counted(image.rtmr0.len(), "machine shape", "machine shapes"),
        ));
    }
    section.denies("every other image, also one that differs in a single register");
    tdx_platform(&mut section, rules);
    tdx_collateral(&mut section, rules);
    section
}

fn tdx_platform(section: &mut Section, rules: &TdxRules) {
    for status in &rules.tcb_status {
        let text = format!("platforms that Intel calls {status}");
        match status {
            TcbStatus::UpToDate => section.accepts(text),
            TcbStatus::SwHardeningNeeded => section.accepts(format!(
                "{text}: the image itself must hold the mitigations that Intel asks for"
            )),
            TcbStatus::ConfigurationNeeded
            | TcbStatus::ConfigurationAndSwHardeningNeeded
            | TcbStatus::OutOfDate
            | TcbStatus::OutOfDateConfigurationNeeded
            | TcbStatus::Revoked
            | TcbStatus::TdRelaunchAdvised
            | TcbStatus::TdRelaunchAdvisedConfigurationNeeded => {
                section.weak(format!("{text}: known holes may be open there; list UpToDate alone"));
            }
        }
    }
    section.denies("platforms of any other standing; revoked ones always");
    if !rules.reject_advisories.is_empty() {
        section.denies(format!("platforms under {}", rules.reject_advisories.join(", ")));
    }
    let flags = [
        (rules.allow_smt, "with hyper-threading (`allow_smt`)"),
        (rules.allow_dynamic_platform, "that may grow by packages (`allow_dynamic_platform`)"),
        (rules.allow_cached_keys, "whose keys Intel keeps (`allow_cached_keys`)"),
    ];
    for (allowed, what) in flags {
        let text = format!("platforms {what}");
        if allowed { section.accepts(text) } else { section.denies(text) }
    }
    if rules.allowed_ppid.is_empty() {
        section.weak(format!("{ANY_MACHINE}; `allowed_ppid` names the machines that you trust"));
    } else {
        let machines = counted(rules.allowed_ppid.len(), "machine", "machines");
        section.accepts(format!("{machines} by their platform id, no other"));
    }
}

fn tdx_collateral(section: &mut Section, rules: &TdxRules) {
    let (age, fresh) = (days(rules.max_collateral_age), days(FRESH_COLLATERAL));
    if rules.max_collateral_age > FRESH_COLLATERAL {
        section.weak(format!(
            "collateral may be {age} old, so a revocation may go unnoticed that long; \
             `max_collateral_age_h` of {} ({fresh}) or less is better",
            FRESH_COLLATERAL.get() / 3_600_000
        ));
    } else {
        section.denies(format!("collateral issued more than {age} ago"));
    }
    let number = rules.min_tcb_evaluation_data_number;
    if number == 0 {
        section.weak(
            "collateral of any TCB evaluation counts, so a provider may choose an old one; \
             set `min_tcb_eval_data_number` to Intel's current number",
        );
    } else {
        section.denies(format!("collateral of a TCB evaluation before number {number}"));
    }
}

fn snp(rules: Option<&SnpRules>) -> Section {
    let mut section = Section::new("AMD SEV-SNP");
    let Some(rules) = rules.filter(|rules| !rules.images.is_empty()) else {
        section.denies(if rules.is_none() {
            "everything: the policy has no [snp]"
        } else {
            "everything: no [[snp.image]] is listed, and an empty list denies"
        });
        return section;
    };
    for image in &rules.images {
        let vcpus = image.vcpus.map_or_else(String::new, |count| {
            format!(
                " with {}",
                counted(usize::try_from(count).unwrap_or(usize::MAX), "vCPU", "vCPUs")
            )
        });
        let version = match image.min_guest_svn {
            0 => String::new(),
            least => format!(", from version {least} of the guest on"),
        };
        let name = &image.name;
        section.accepts(format!("image `{name}`{vcpus}, when its launch digest matches{version}"));
    }
    section.denies("every other image, also the same one with another number or model of vCPUs");
    snp_firmware(&mut section, rules);
    snp_platform(&mut section, rules);
    section
}

fn snp_firmware(section: &mut Section, rules: &SnpRules) {
    let level = |level: &SnpTcb| {
        let components = level.components().into_iter().filter(|(_, version)| *version > 0);
        components.map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", ")
    };
    for product in &rules.products {
        match rules.min_tcb.get(product).map(level).filter(|text| !text.is_empty()) {
            Some(least) => section.accepts(format!("{product} with firmware of at least {least}")),
            None => section.weak(format!(
                "{product} with firmware of any age, so with every hole that AMD has closed since; \
                 set `snp.min_tcb.{product}` from AMD's current bulletins"
            )),
        }
        if let Some(least) = rules.min_launch_tcb.get(product).map(level) {
            section.weak(format!(
                "guests on {product} that were launched on older firmware ({}): what leaked then \
                 stays leaked; leave out `snp.min_launch_tcb.{product}`",
                if least.is_empty() { "any" } else { &least }
            ));
        }
        if rules.asvk.contains_key(product) {
            section.weak(format!(
                "reports by keys that a provider of {product} machines loads (VLEK): they do not \
                 prove which chip ran"
            ));
        }
    }
    section.denies("every other processor family");
    if rules.max_vmpl > 0 {
        section.weak(format!(
            "reports from privilege levels up to {}: software above the guest's kernel may have \
             asked for them; `max_vmpl = 0` unless the image has a paravisor that you measured",
            rules.max_vmpl
        ));
    }
    let age = days(rules.max_crl_age);
    if rules.max_crl_age > FRESH_CRL {
        section.weak(format!(
            "AMD's revocation list may be {age} old, so a revocation may go unnoticed that long; \
             `max_crl_age_d` of {} or less is better",
            FRESH_CRL.get() / 86_400_000
        ));
    } else {
        section.denies(format!("revocation lists issued more than {age} ago"));
    }
}

fn snp_platform(section: &mut Section, rules: &SnpRules) {
    let smt = "platforms with hyper-threading (`allow_smt`)";
    if rules.allow_smt {
        section.accepts(smt);
    } else {
        section.denies(smt);
    }
    let demands = [
        (rules.require_single_socket, "guests that may run on two sockets"),
        (rules.require_ciphertext_hiding, "platforms whose host can read the guest's ciphertext"),
        (rules.require_alias_check, "platforms that did not check their memory (against BadRAM)"),
    ];
    for (demanded, what) in demands {
        if demanded { section.denies(what) } else { section.accepts(what) }
    }
    if rules.allowed_chip_id.is_empty() {
        section.weak(format!("{ANY_MACHINE}; `allowed_chip_id` names the chips that you trust"));
    } else {
        let chips = counted(rules.allowed_chip_id.len(), "chip", "chips");
        section.accepts(format!("{chips} by their id, no other"));
    }
}

fn gpu(rules: Option<&GpuRules>) -> Section {
    let mut section = Section::new("NVIDIA GPU");
    let Some(rules) = rules else {
        section.denies("every GPU, so nothing is `confidential`: the policy has no [gpu]");
        return section;
    };
    let known = rules.identity_only.is_some() || !rules.golden.is_empty();
    if rules.architectures.is_empty() || !known {
        section.denies(if known {
            "every GPU: `arch` lists no family, and an empty list denies"
        } else {
            "every GPU: no [[gpu.golden]] is listed, and an empty list denies"
        });
        return section;
    }
    let families: Vec<_> = rules.architectures.iter().map(|family| family.as_str()).collect();
    let families = families.join(", ");
    for golden in &rules.golden {
        let measurements = counted(golden.measurements.len(), "measurement", "measurements");
        section.accepts(format!(
            "{families} with driver {} and VBIOS {} where {measurements} have a listed value: \
             `confidential`, together with a TEE",
            golden.driver, golden.vbios
        ));
    }
    if let Some(only) = &rules.identity_only {
        let drivers = counted(only.drivers.len(), "driver", "drivers");
        section.weak(format!(
            "genuine {families} of {drivers} whatever they measure, at tier `attested` \
             (`gpu-identity-only`); golden values say what they run"
        ));
    }
    section.denies("every other family, driver, VBIOS and measured value");
    gpu_evidence(&mut section, rules);
    section
}

fn gpu_evidence(section: &mut Section, rules: &GpuRules) {
    if rules.required {
        section
            .denies("sessions with a TEE that show no evidence of GPUs, also at tier `attested`");
    }
    if rules.allow_missing_fwid {
        section.weak(
            "reports that do not name their firmware (`allow_missing_fwid`): take drivers that do",
        );
    }
    let revoked = counted(rules.revoked_keys.len(), "key", "keys");
    section.weak(format!(
        "what NVIDIA has revoked, but for {revoked} in `revoked_keys`: NVIDIA answers that online \
         only, and nobody is asked"
    ));
}

/// `1 machine`, `2 machines`.
fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// A length of time as people say it: days from two days on, hours below.
fn days(length: Millis) -> String {
    let hours = length.get() / 3_600_000;
    if hours >= 48 && hours.is_multiple_of(24) {
        format!("{} days", hours / 24)
    } else {
        format!("{hours} h")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_policy;

    const EXAMPLE: &str = include_str!("../testdata/policy.toml");

    fn weak(text: &str) -> Vec<String> {
        let explanation = explain(&parse_policy(text).unwrap());
        explanation.weak_spots().map(|(subject, text)| format!("{subject}: {text}")).collect()
    }

    fn said(text: &str, stance: Stance) -> String {
        let explanation = explain(&parse_policy(text).unwrap());
        let statements = explanation.sections.iter().flat_map(|section| &section.statements);
        statements
            .filter(|statement| statement.stance == stance)
            .map(|statement| format!("{}\n", statement.text))
            .collect()
    }

    #[test]
    fn the_example_names_what_it_accepts_and_denies() {
        let accepted = said(EXAMPLE, Stance::Accepts);
        assert!(accepted.contains("image `cocoon-node-0.1.0` on 2 machine shapes"), "{accepted}");
        assert!(accepted.contains("platforms that Intel calls UpToDate"), "{accepted}");
        let denied = said(EXAMPLE, Stance::Denies);
        for expected in ["simulated", "below tier `attested`", "7 days ago", "number 17"] {
            assert!(denied.contains(expected), "{expected}: {denied}");
        }
        // Which machines may run the image is the one thing that the example leaves open.
        assert!(
            weak(EXAMPLE).iter().all(|it| it.contains("`allowed_ppid`")),
            "{:?}",
            weak(EXAMPLE)
        );
    }

    #[test]
    fn gpus_are_put_into_words() {
        let none = said(EXAMPLE, Stance::Denies);
        assert!(none.contains("nothing is `confidential`"), "{none}");

        let gpu = |rules: &str| format!("version = 1\ntrust = \"production\"\n[gpu]\n{rules}");
        let denied = |rules: &str| said(&gpu(rules), Stance::Denies);
        assert!(denied("arch = [\"GH100\"]\n").contains("no [[gpu.golden]] is listed"));
        let state = format!(
            "[[gpu.golden]]\ndriver = \"550.90.07\"\nvbios = \"96.00.9F.00.01\"\n\
             measurements = {{ 0 = [\"{}\"] }}\n",
            "ab".repeat(48)
        );
        assert!(denied(&format!("arch = []\n{state}")).contains("`arch` lists no family"));

        let rules = format!("arch = [\"GH100\"]\nrequired = true\n{state}");
        let accepted = said(&gpu(&rules), Stance::Accepts);
        assert!(accepted.contains("GH100 with driver 550.90.07 and VBIOS 96.00.9F.00.01"));
        assert!(accepted.contains("1 measurement"), "{accepted}");
        assert!(denied(&rules).contains("show no evidence of GPUs"));

        let rules = "arch = [\"GB100\"]\nallow_missing_fwid = true\n[gpu.identity_only]\n\
                     drivers = [\"575.32\"]\nvbios = [\"97.00.82.00.1F\"]\n";
        let weak = weak(&gpu(rules)).join("\n");
        for expected in ["gpu-identity-only", "allow_missing_fwid", "NVIDIA has revoked"] {
            assert!(weak.contains(expected), "{expected}: {weak}");
        }
    }

    #[test]
    fn every_weak_choice_is_called_weak() {
        let cases = [
            ("trust = \"production\"", "trust = \"dev\"", "NO SECURITY"),
            ("minimum_tier = \"attested\"", "minimum_tier = \"open\"", "`open`"),
            ("tcb_status = [\"UpToDate\"]", "tcb_status = [\"OutOfDate\"]", "OutOfDate"),
            ("max_collateral_age_h = 168", "max_collateral_age_h = 720", "30 days"),
            ("min_tcb_eval_data_number = 17", "min_tcb_eval_data_number = 0", "evaluation"),
        ];
        for (strong, chosen, expected) in cases {
            let changed = EXAMPLE.replace(strong, chosen);
            assert_ne!(changed, EXAMPLE, "{strong}");
            assert_eq!(weak(&changed).len(), weak(EXAMPLE).len() + 1, "{chosen}");
            assert!(weak(&changed).iter().any(|it| it.contains(expected)), "{chosen}");
        }
        let named = EXAMPLE
            .replace("allowed_ppid = []", "allowed_ppid = [\"00112233445566778899aabbccddeeff\"]");
        assert!(weak(&named).len() < weak(EXAMPLE).len());
    }

    const SNP: &str = r#"
[snp]
products = ["Milan"]
max_crl_age_d = 30
allow_smt = true
allowed_chip_id = ["00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"]
[snp.min_tcb.Milan]
bl = 3
tee = 0
snp = 8
ucode = 115
[[snp.image]]
name = "cocoon-node-16"
measurement = "616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161"
vcpus = 16
"#;

    #[test]
    fn snp_is_put_into_words_and_its_weak_choices_are_called_weak() {
        let strong = format!("{EXAMPLE}{SNP}");
        let accepted = said(&strong, Stance::Accepts);
        for expected in [
            "image `cocoon-node-16` with 16 vCPUs",
            "Milan with firmware of at least bl 3, snp 8, ucode 115",
            "1 chip by their id",
        ] {
            assert!(accepted.contains(expected), "{expected}: {accepted}");
        }
        assert_eq!(weak(&strong), weak(EXAMPLE));
        let cases = [
            ("max_crl_age_d = 30", "max_crl_age_d = 200", "200 days"),
            (
                "[[snp.image]]",
                "[snp.min_launch_tcb.Milan]\nbl = 1\ntee = 0\nsnp = 0\nucode = 0\n[[snp.image]]",
                "older firmware (bl 1)",
            ),
            (
                "bl = 3\ntee = 0\nsnp = 8\nucode = 115",
                "bl = 0\ntee = 0\nsnp = 0\nucode = 0",
                "any age",
            ),
            ("allow_smt = true\nallowed", "max_vmpl = 1\nallowed", "privilege levels up to 1"),
        ];
        for (from, to, expected) in cases {
            let changed = strong.replace(from, to);
            assert_eq!(weak(&changed).len(), weak(&strong).len() + 1, "{to}");
            assert!(weak(&changed).iter().any(|it| it.contains(expected)), "{to}");
        }
        let any = strong.lines().filter(|line| !line.starts_with("allowed_chip_id"));
        assert!(weak(&any.collect::<Vec<_>>().join("\n")).len() > weak(&strong).len());
    }

    #[test]
    fn followed_maintainers_are_named_and_an_optional_one_is_weak() {
        let maintainer = "ab".repeat(32);
        let follow = |more: &str| {
            format!(
                "{EXAMPLE}\n[[advisories]]\nmaintainer = \"{maintainer}\"\nsource = \"a\"\n{more}"
            )
        };
        assert_eq!(weak(&follow("")), weak(EXAMPLE));
        assert!(said(&follow(""), Stance::Denies).contains("all evidence while no list of abab"));
        assert_eq!(weak(&follow("required = false")).len(), weak(EXAMPLE).len() + 1);
    }

    #[test]
    fn an_empty_list_is_said_to_deny() {
        let nothing = "version = 1\ntrust = \"production\"\n";
        assert!(said(nothing, Stance::Denies).contains("the policy has no [tdx]"));
        assert!(said(nothing, Stance::Denies).contains("the policy has no [snp]"));
        let empty = format!(
            "{nothing}[tdx]\ntcb_status = [\"UpToDate\"]\nmin_tcb_eval_data_number = 1\n\
             max_collateral_age_h = 1\n"
        );
        assert!(said(&empty, Stance::Denies).contains("no [[tdx.image]] is listed"));
    }
}
