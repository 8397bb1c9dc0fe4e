//! What a provider's configuration is, as far as those who trust it care: one digest.
//!
//! Owns: which settings are in it, and their text. Must not: hold anything of one provider alone,
//! such as prices or names: a policy lists the register that follows from this digest, and two nodes
//! that treat prompts alike have the same one.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::config::Config;

/// SHA-256 of the configuration's text: in the identity quote, in RTMR3 on TDX, and to be given as
/// host data on SEV-SNP. `engine` is the engine's build.
pub(crate) fn digest(config: &Config, engine: &str, manifest: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(text(config, engine, manifest)).into()
}

/// The text itself, for whoever wants to see what changed.
pub(crate) fn text(config: &Config, engine: &str, manifest: &[u8; 32]) -> String {
    let lines = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("network", config.network.as_str().to_owned()),
        // What could carry a prompt out: log lines, and a gateway in the same process.
        ("log", config.log.as_str().to_owned()),
        ("consume", config.consume.to_string()),
        ("engine", engine.to_owned()),
        // The weights, and the limits that they are served with.
        ("manifest", hex::encode(manifest)),
    ];
    let mut text = String::from("cocoon-node/configuration/v1\n");
    for (key, value) in lines {
        // Debug output quotes: no value can pretend to be another line. A `String` takes everything.
        let _ = writeln!(text, "{key} = {value:?}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config_with;

    #[test]
    fn what_touches_prompts_changes_the_digest_and_what_does_not_leaves_it() {
        let base = config_with(&[]);
        let of = |config: &Config| digest(config, "echo", &[1; 32]);
        let same = [
            config_with(&[("prompt_price", "1 TON")]),
            config_with(&[("region", "eu")]),
            config_with(&[("listen", "/ip4/127.0.0.1/tcp/1")]),
        ];
        for config in same {
            assert_eq!(of(&config), of(&base));
        }
        let mut seen = vec![
            of(&base),
            digest(&base, "llama", &[1; 32]),
            digest(&base, "echo", &[2; 32]),
            of(&config_with(&[("log", "debug")])),
            of(&config_with(&[("consume", "true")])),
            of(&config_with(&[("network", "testnet"), ("ton_config", "file")])),
        ];
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn golden_text() {
        let text = text(&config_with(&[]), "echo \"1\"\nx", &[1; 32]);
        let expected = format!(
            "cocoon-node/configuration/v1\nversion = \"{}\"\nnetwork = \"devnet\"\nlog = \"info\"\n\
             consume = \"false\"\nengine = \"echo \\\"1\\\"\\nx\"\nmanifest = \"{}\"\n",
            env!("CARGO_PKG_VERSION"),
            "01".repeat(32)
        );
        assert_eq!(text, expected);
    }
}
