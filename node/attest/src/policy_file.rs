//! The policy as a person writes it: TOML.
//!
//! Owns: the syntax. Must not: know the rules; `cocoon_protocol::attest::Policy` validates itself.

use cocoon_protocol::attest::Policy;
use serde::de::Error as _;

use crate::snp;

/// The policy file was not understood. Nothing of it is applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the attestation policy is not valid; correct the place named below")]
pub struct PolicyFileError {
    /// Where and why.
    source: Box<toml::de::Error>,
    line: Option<usize>,
}

impl PolicyFileError {
    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        self.source.message()
    }

    /// The line, from 1 on; `None` for what no single line is to blame for.
    pub const fn line(&self) -> Option<usize> {
        self.line
    }
}

/// Reads a policy from the text of its file.
///
/// # Errors
/// Syntax, an unknown or missing key, or a rule that would weaken the policy by accident.
pub fn parse_policy(text: &str) -> Result<Policy, PolicyFileError> {
    let refuse = |source: toml::de::Error| {
        let before = source.span().and_then(|span| text.get(..span.start));
        let line = before.map(|before| before.matches('\n').count().saturating_add(1));
        PolicyFileError { source: Box::new(source), line }
    };
    let policy: Policy = toml::from_str(text).map_err(refuse)?;
    // Only here is it known what a certificate is.
    for (product, certificate) in policy.snp().into_iter().flat_map(|rules| &rules.asvk) {
        if !snp::is_intermediate(certificate) {
            let reason =
                format!("[snp.asvk] {product} is not an intermediate certificate of AMD's");
            return Err(refuse(toml::de::Error::custom(reason)));
        }
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_protocol::attest::{Tier, Trust};
    use proptest::prelude::*;
    use std::error::Error as _;

    const EXAMPLE: &str = include_str!("../testdata/policy.toml");

    fn refusal(text: &str) -> String {
        parse_policy(text).unwrap_err().source().unwrap().to_string()
    }

    #[test]
    fn the_example_is_a_policy() {
        let policy = parse_policy(EXAMPLE).unwrap();
        assert_eq!(policy.trust(), Trust::Production);
        assert_eq!(policy.minimum_tier(), Tier::Attested);
        let rules = policy.tdx().unwrap();
        assert_eq!(rules.images.len(), 1);
        assert_eq!(rules.images[0].rtmr0.len(), 2);
    }

    #[test]
    fn the_example_for_sev_snp_is_a_policy() {
        let policy = parse_policy(include_str!("../testdata/policy-snp.toml")).unwrap();
        let rules = policy.snp().unwrap();
        assert!(policy.tdx().is_none() && rules.asvk.is_empty());
        assert_eq!((rules.products.len(), rules.min_tcb.len()), (3, 3));
        assert_eq!(rules.images[0].vcpus, Some(16));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let unknown = EXAMPLE.replace("allow_smt", "alow_smt");
        let error = refusal(&unknown);
        assert!(error.contains("unknown field `alow_smt`") && error.contains("line"), "{error}");

        let partial: String = EXAMPLE
            .lines()
            .filter(|line| !line.starts_with("rtmr2"))
            .collect::<Vec<_>>()
            .join("\n");
        assert!(refusal(&partial).contains("missing field `rtmr2`"));

        let version = EXAMPLE.replace("version = 1", "version = 3");
        assert!(refusal(&version).contains("version 3"));
        assert!(refusal("").contains("missing field"));
        assert!(refusal("version = 1\ntrust = \"anyone\"").contains("unknown variant"));
    }

    #[test]
    fn a_policy_without_images_is_valid_and_lists_none() {
        let text = "version = 1\ntrust = \"production\"\n[tdx]\ntcb_status = [\"UpToDate\"]\n\
                    min_tcb_eval_data_number = 1\nmax_collateral_age_h = 1\n";
        assert!(parse_policy(text).unwrap().tdx().unwrap().images.is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_an_error_or_a_policy(text in ".{0,200}") {
            let _ = parse_policy(&text);
        }
    }
}
