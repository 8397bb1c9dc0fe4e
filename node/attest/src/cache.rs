//! Remembered judgements about identity quotes.
//!
//! Owns: the bound and the life of what is remembered.
//! Must not: remember a session quote; those are fresh by definition.

use std::collections::BTreeMap;

use cocoon_protocol::attest::{Appraisal, PolicyId, Refusal};
use cocoon_protocol::limits;
use cocoon_protocol::units::Timestamp;

/// What a judgement depends on. A change of any part is another judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CacheKey {
    /// SHA-256 of the certificate's hash and of what its quote must be bound to.
    pub(crate) certificate: [u8; 32],
    /// The policy.
    pub(crate) policy: PolicyId,
    /// SHA-256 of the endorsements.
    pub(crate) collateral: [u8; 32],
}

/// Judgements kept: one for each session that a node may have, four times over for renewals. When
/// full, the one that ends first makes room, so a flood of refusals displaces refusals.
const ENTRIES: usize = 4 * limits::SESSIONS;

#[derive(Debug, Default)]
pub(crate) struct VerdictCache {
    entries: BTreeMap<CacheKey, (Timestamp, Result<Appraisal, Refusal>)>,
}

impl VerdictCache {
    pub(crate) fn find(
        &self,
        key: &CacheKey,
        now: Timestamp,
    ) -> Option<&Result<Appraisal, Refusal>> {
        self.entries.get(key).filter(|(ends, _)| now < *ends).map(|(_, judgement)| judgement)
    }

    /// Remembers a judgement that cannot hold beyond `not_after`.
    pub(crate) fn insert(
        &mut self,
        key: CacheKey,
        judgement: Result<Appraisal, Refusal>,
        not_after: Timestamp,
        now: Timestamp,
    ) {
        let ends = match &judgement {
            Ok(appraisal) => {
                now.after(limits::VERDICT_LIFETIME).min(not_after).min(appraisal.expires)
            }
            Err(_) => now.after(limits::NEGATIVE_VERDICT_LIFETIME),
        };
        if self.entries.len() >= ENTRIES && !self.entries.contains_key(&key) {
            self.make_room(now);
        }
        self.entries.insert(key, (ends, judgement));
    }

    /// Forgets what was judged about one certificate, with whatever collateral.
    pub(crate) fn forget(&mut self, certificate: &[u8; 32]) {
        self.entries.retain(|key, _| key.certificate != *certificate);
    }

    #[cfg(all(test, feature = "dev-tee"))]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn make_room(&mut self, now: Timestamp) {
        self.entries.retain(|_, (ends, _)| now < *ends);
        if self.entries.len() < ENTRIES {
            return;
        }
        let first = self.entries.iter().min_by_key(|(_, (ends, _))| *ends).map(|(key, _)| *key);
        if let Some(first) = first {
            self.entries.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_protocol::attest::{Policy, Tier};
    use cocoon_protocol::units::Millis;

    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

    fn key(number: usize) -> CacheKey {
        let mut certificate = [0; 32];
        certificate[..8].copy_from_slice(&number.to_be_bytes());
        CacheKey { certificate, policy: Policy::closed().id(), collateral: [0; 32] }
    }

    fn positive(expires: Timestamp) -> Result<Appraisal, Refusal> {
        Ok(Appraisal { tier: Tier::Attested, image: "image".to_owned(), expires })
    }

    fn after(seconds: u64) -> Timestamp {
        NOW.after(Millis::from_secs(seconds))
    }

    #[test]
    fn a_good_judgement_lives_an_hour_and_a_refusal_a_minute() {
        let mut cache = VerdictCache::default();
        cache.insert(key(1), positive(Timestamp::MAX), Timestamp::MAX, NOW);
        cache.insert(key(2), Err(Refusal::Debug), Timestamp::MAX, NOW);
        assert_eq!(cache.find(&key(1), after(3599)), Some(&positive(Timestamp::MAX)));
        assert_eq!(cache.find(&key(1), after(3600)), None);
        assert_eq!(cache.find(&key(2), after(59)), Some(&Err(Refusal::Debug)));
        assert_eq!(cache.find(&key(2), after(60)), None);
    }

    #[test]
    fn a_judgement_ends_with_its_certificate_and_its_collateral() {
        let mut cache = VerdictCache::default();
        cache.insert(key(1), positive(Timestamp::MAX), after(10), NOW);
        cache.insert(key(2), positive(after(10)), Timestamp::MAX, NOW);
        for number in [1, 2] {
            assert!(cache.find(&key(number), after(9)).is_some());
            assert!(cache.find(&key(number), after(10)).is_none());
        }
    }

    #[test]
    fn a_flood_of_refusals_never_grows_it_nor_displaces_the_good() {
        let mut cache = VerdictCache::default();
        cache.insert(key(usize::MAX), positive(Timestamp::MAX), Timestamp::MAX, NOW);
        for number in 0..ENTRIES + 100 {
            cache.insert(key(number), Err(Refusal::Debug), Timestamp::MAX, NOW);
        }
        assert_eq!(cache.entries.len(), ENTRIES);
        assert!(cache.find(&key(usize::MAX), NOW).is_some());
        assert!(cache.find(&key(0), NOW).is_none());
        assert!(cache.find(&key(ENTRIES + 99), NOW).is_some());
    }
}
