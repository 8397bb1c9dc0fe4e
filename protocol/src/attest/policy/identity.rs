//! A policy's identity: one hash for one meaning.
//!
//! Owns: the hash input's form. Must not: know the rules; each vendor's rules append themselves.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::attest::advisories::Subscription;
use crate::attest::policy::{Rules, Trust};
use crate::attest::tier::Tier;
use crate::identity::append_length_prefixed;

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

/// The hash of everything that a policy says: the domain, the trust, the floor, then for each vendor
/// that has rules `LP(vendor) LP(rules)`. Each section is length-prefixed as a whole, so no rule of
/// one vendor can pass for another's.
pub(super) fn policy_id(
    trust: Trust,
    minimum_tier: Tier,
    rules: &Rules,
    subscriptions: &[Subscription],
) -> PolicyId {
    let mut input = Vec::new();
    append_length_prefixed(&mut input, b"cocoon-node/tee/policy/v1");
    input.push(match trust {
        Trust::Production => 0,
        Trust::Dev => 1,
    });
    append_length_prefixed(&mut input, minimum_tier.as_str().as_bytes());
    let mut section = |vendor: &[u8], fill: &mut dyn FnMut(&mut Section)| {
        let mut content = Section::default();
        fill(&mut content);
        append_length_prefixed(&mut input, vendor);
        append_length_prefixed(&mut input, &content.0);
    };
    if let Some(tdx) = &rules.tdx {
        section(b"tdx", &mut |content| tdx.append_to(content));
    }
    if let Some(snp) = &rules.snp {
        section(b"snp", &mut |content| snp.append_to(content));
    }
    if let Some(gpu) = &rules.gpu {
        section(b"gpu", &mut |content| gpu.append_to(content));
    }
    if !subscriptions.is_empty() {
        section(b"advisories", &mut |content| {
            content.count(subscriptions.len());
            for subscription in subscriptions {
                content.bytes(subscription.maintainer.as_bytes());
                content.bytes(subscription.source.as_bytes());
                content.flags([subscription.required]);
            }
        });
    }
    PolicyId(Sha256::digest(&input).into())
}

/// One vendor's rules as bytes, in a fixed order: each text length-prefixed, each list with its
/// length, each number big-endian.
#[derive(Debug, Default)]
pub(in crate::attest) struct Section(Vec<u8>);

impl Section {
    /// `LP(bytes)`.
    pub(in crate::attest) fn bytes(&mut self, bytes: &[u8]) {
        append_length_prefixed(&mut self.0, bytes);
    }

    /// The number of items that follow.
    pub(in crate::attest) fn count(&mut self, count: usize) {
        self.number(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// The number of items, and each as `LP(item)`.
    pub(in crate::attest) fn list<'a>(&mut self, items: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.count(items.len());
        for item in items {
            self.bytes(item);
        }
    }

    pub(in crate::attest) fn number(&mut self, number: impl Into<u64>) {
        self.0.extend_from_slice(&number.into().to_be_bytes());
    }

    pub(in crate::attest) fn flags(&mut self, flags: impl IntoIterator<Item = bool>) {
        self.0.extend(flags.into_iter().map(u8::from));
    }
}
