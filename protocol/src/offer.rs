//! What a provider sells: the signed offer, and the consumer's book of current offers.
//!
//! Owns: what makes an offer valid, and which of two offers holds.
//! Must not: look anything up or choose; the overlay finds, `selection` ranks.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::attest::Tier;
use crate::flat;
use crate::identity::{Domain, ModelHash, NodeId, NodeKey, TonAddress, append_length_prefixed};
use crate::limits;
use crate::units::{Prices, Timestamp, Tokens};
use crate::wire;

/// How full a provider is, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Load {
    /// Places are free.
    Idle,
    /// Most places are taken.
    Busy,
    /// No place is free.
    Full,
    /// It finishes what it has and takes nothing new.
    Draining,
}

/// One model in an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelOffer {
    /// Which weights.
    pub model: ModelHash,
    /// The provider's own name for it: shown, never believed.
    pub name: String,
    /// As the weights file says, for example `Q4_1`.
    pub quantisation: String,
    /// Context that one job may fill.
    pub context: Tokens,
    /// What it costs.
    pub prices: Prices,
}

/// What a provider sells, until when, and where the money goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Who offers.
    pub provider: NodeId,
    /// Grows with every change.
    pub sequence: u64,
    /// When it was made, by the provider's clock.
    pub issued: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// TON's global id of the network that payments are on.
    pub network: i32,
    /// At most `limits::OFFER_MODELS`.
    pub models: Vec<ModelOffer>,
    /// The tier that the provider says it can prove. Nothing is believed before a session proves it.
    pub tier: Tier,
    /// Digest of the evidence that the session will show; `None` in tier `open`.
    pub evidence_digest: Option<[u8; 32]>,
    /// Where settlements go.
    pub payout: TonAddress,
    /// How full the provider is.
    pub load: Load,
    /// The provider's claim of where it stands; may be empty.
    pub region: String,
    /// What computes, in which version, at most 64 bytes. Part of the manifest.
    pub engine: String,
}

impl Offer {
    /// Signs the offer; the result is what travels.
    pub fn sign(&self, key: &NodeKey) -> SignedOffer {
        let offer = wire::encode_offer(self);
        let signature = key.sign(Domain::Offer, &offer);
        SignedOffer(wire::encode_signed_offer(&offer, &signature))
    }

    /// The digest of what is served; see [`manifest`].
    pub fn manifest(&self) -> [u8; 32] {
        manifest(&self.engine, &self.models)
    }

    /// The entry for one model.
    pub fn model(&self, model: ModelHash) -> Option<&ModelOffer> {
        self.models.iter().find(|offered| offered.model == model)
    }
}

/// SHA-256 of what is served: the engine's build, and for each model, in order of their hashes, the
/// weights and the longest context. A session's evidence is bound to it, so that a quote made for one
/// model, engine or limit cannot stand for another.
///
/// Tokenizer and chat template are in the weights' file, and so in its hash.
pub fn manifest(engine: &str, models: &[ModelOffer]) -> [u8; 32] {
    let mut models: Vec<_> =
        models.iter().map(|offered| (offered.model, offered.context.get())).collect();
    models.sort();
    let mut bytes = Vec::new();
    append_length_prefixed(&mut bytes, b"cocoon/model-manifest/v2");
    append_length_prefixed(&mut bytes, engine.as_bytes());
    for (model, context) in models {
        append_length_prefixed(&mut bytes, model.as_bytes());
        append_length_prefixed(&mut bytes, &context.to_be_bytes());
    }
    Sha256::digest(&bytes).into()
}

/// An offer as it travels: bytes that nobody has checked yet, or that were just signed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedOffer(Vec<u8>);

/// Why an offer is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The bytes are not an offer.
    #[error("the offer is malformed")]
    Malformed(#[source] wire::DecodeError),
    /// The signature is not the provider's.
    #[error("the offer's signature is not its provider's")]
    BadSignature,
    /// The offer has ended.
    #[error("the offer has expired")]
    Expired,
    /// The offer's times contradict each other or the local clock.
    #[error("the offer's times are not plausible: check the clocks on both sides")]
    ImplausibleTimes,
    /// The same model stands twice in it.
    #[error("the offer names a model twice")]
    DuplicateModel,
}

impl SignedOffer {
    /// Takes bytes from a peer as they are.
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes that travel.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Checks layout, bounds, signature and times at `now`. Pure: run it at the edge, in parallel.
    pub fn verify(&self, now: Timestamp) -> Result<VerifiedOffer, OfferError> {
        let (bytes, signature) =
            wire::decode_signed_offer(&self.0).map_err(OfferError::Malformed)?;
        let offer = wire::decode_offer(&bytes).map_err(OfferError::Malformed)?;
        if offer.expires <= now {
            return Err(OfferError::Expired);
        }
        if offer.issued > now.after(limits::CLOCK_SKEW)
            || offer.expires <= offer.issued
            || offer.expires.since(offer.issued) > limits::OFFER_LIFETIME
        {
            return Err(OfferError::ImplausibleTimes);
        }
        let models: std::collections::BTreeSet<_> =
            offer.models.iter().map(|offered| offered.model).collect();
        if models.len() != offer.models.len() {
            return Err(OfferError::DuplicateModel);
        }
        if !offer.provider.verify(Domain::Offer, &bytes, &signature) {
            return Err(OfferError::BadSignature);
        }
        Ok(VerifiedOffer { offer, signed: self.clone() })
    }
}

/// An offer whose signature, bounds and times were checked. The only kind that machines accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedOffer {
    offer: Offer,
    signed: SignedOffer,
}

impl VerifiedOffer {
    /// What is offered.
    pub const fn offer(&self) -> &Offer {
        &self.offer
    }

    /// The bytes that were checked.
    pub const fn signed(&self) -> &SignedOffer {
        &self.signed
    }
}

/// What became of an offer that was put in the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// The provider is new in the book.
    New,
    /// It replaced an older offer of the same provider.
    Replaced,
    /// The book has this one or a newer one already.
    NotNewer,
}

/// The consumer's current offers, one a provider.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// In the order of their providers.
    offers: Vec<Known>,
    /// Nothing ends before this. An offer that was replaced may leave it too early.
    nothing_ends_before: Option<Timestamp>,
}

/// An offer, found without a look at it: it lies elsewhere, and a provider's first bytes tell nearly
/// always.
#[derive(Clone, Debug)]
struct Known {
    head: u64,
    offer: Arc<VerifiedOffer>,
}

/// The first bytes of a provider's identity, in the order of identities.
fn head(provider: &NodeId) -> u64 {
    provider.as_bytes().first_chunk::<8>().map_or(0, |head| u64::from_be_bytes(*head))
}

impl Known {
    fn new(offer: Arc<VerifiedOffer>) -> Self {
        Self { head: head(&offer.offer.provider), offer }
    }

    fn terms(&self) -> &Offer {
        &self.offer.offer
    }
}

impl Book {
    /// Puts an offer in the book. When the book is full, the offer that ends first makes room.
    pub fn insert(&mut self, offer: Arc<VerifiedOffer>) -> Insertion {
        let (provider, ends) = (offer.offer.provider, offer.offer.expires);
        let ends = self.nothing_ends_before.map_or(ends, |before| before.min(ends));
        let mut place = self.find(provider);
        if let Ok(at) = place
            && let Some(known) = self.offers.get_mut(at)
        {
            if known.terms().sequence >= offer.offer.sequence {
                return Insertion::NotNewer;
            }
            *known = Known::new(offer);
            self.nothing_ends_before = Some(ends);
            return Insertion::Replaced;
        }
        if self.offers.len() >= limits::BOOK_OFFERS {
            let soonest = self.offers.iter().min_by_key(|known| known.terms().expires);
            if let Some(soonest) = soonest.map(|known| known.terms().provider) {
                self.remove(soonest);
            }
            place = self.find(provider);
        }
        flat::grow(&mut self.offers);
        self.offers.insert(place.unwrap_or_else(|at| at), Known::new(offer));
        self.nothing_ends_before = Some(ends);
        Insertion::New
    }

    fn find(&self, provider: NodeId) -> Result<usize, usize> {
        let head = head(&provider);
        let order = |known: &Known| {
            known.head.cmp(&head).then_with(|| known.terms().provider.cmp(&provider))
        };
        self.offers.binary_search_by(order)
    }

    /// Forgets a provider, because it left or misbehaved.
    pub fn remove(&mut self, provider: NodeId) -> Option<Arc<VerifiedOffer>> {
        let removed = self.offers.remove(self.find(provider).ok()?);
        flat::shrink(&mut self.offers);
        Some(removed.offer)
    }

    /// Forgets what has ended at `now`.
    pub fn expire(&mut self, now: Timestamp) {
        if self.nothing_ends_before.is_none_or(|before| before > now) {
            return;
        }
        self.offers.retain(|known| known.terms().expires > now);
        flat::shrink(&mut self.offers);
        self.nothing_ends_before = self.offers.iter().map(|known| known.terms().expires).min();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.offers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.offers.is_empty()
    }

    /// The provider's current offer.
    pub fn offer(&self, provider: NodeId) -> Option<&Offer> {
        self.offers.get(self.find(provider).ok()?).map(Known::terms)
    }

    /// All offers, in the order of their providers' identities.
    pub fn offers(&self) -> impl Iterator<Item = &Offer> {
        self.offers.iter().map(Known::terms)
    }

    /// The offers for one model, in the order of their providers' identities.
    pub fn offers_for(&self, model: ModelHash) -> impl Iterator<Item = (&Offer, &ModelOffer)> {
        self.offers().filter_map(move |offer| offer.model(model).map(|found| (offer, found)))
    }

    /// When the next offer may end; never later than when it does.
    pub const fn next_expiry(&self) -> Option<Timestamp> {
        self.nothing_ends_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Millis, PricePerMillion};
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

    fn key(seed: u8) -> NodeKey {
        NodeKey::from_secret(&[seed; 32])
    }

    fn offer(seed: u8, sequence: u64) -> Offer {
        Offer {
            provider: key(seed).id(),
            sequence,
            issued: NOW,
            expires: NOW.after(Millis::from_secs(300)),
            network: -7_337,
            models: vec![ModelOffer {
                model: ModelHash::from_bytes([9; 32]),
                name: "smollm2-135m".into(),
                quantisation: "Q4_1".into(),
                context: Tokens::new(8192),
                prices: Prices {
                    prompt: PricePerMillion::from_nano(1_000),
                    completion: PricePerMillion::from_nano(2_000),
                },
            }],
            tier: Tier::Attested,
            evidence_digest: Some([4; 32]),
            payout: TonAddress { workchain: 0, hash: [5; 32] },
            load: Load::Idle,
            region: "eu".into(),
            engine: "engine/1".into(),
        }
    }

    #[test]
    fn a_signed_offer_verifies_and_keeps_every_field() {
        let offer = offer(1, 7);
        let verified = offer.sign(&key(1)).verify(NOW).unwrap();
        assert_eq!(verified.offer(), &offer);
    }

    #[test]
    fn the_manifest_is_of_weights_engine_and_limits_alone() {
        let plain = offer(1, 7);
        let mut dearer = plain.clone();
        dearer.models[0].prices.prompt = PricePerMillion::from_nano(9);
        dearer.models[0].name = "another name".into();
        assert_eq!(plain.manifest(), dearer.manifest());
        let (mut weights, mut engine, mut context) = (plain.clone(), plain.clone(), plain.clone());
        weights.models[0].model = ModelHash::from_bytes([8; 32]);
        engine.engine = "engine/2".into();
        context.models[0].context = Tokens::new(8191);
        for other in [weights, engine, context] {
            assert_ne!(plain.manifest(), other.manifest());
        }
    }

    // Computed with Python's hashlib from the words of `manifest`.
    #[test]
    fn golden_manifest() {
        let mut two = offer(1, 7);
        let mut other = two.models[0].clone();
        (other.model, other.context) = (ModelHash::from_bytes([8; 32]), Tokens::new(512));
        two.models.push(other);
        let digest = "300451badbcfda2f5e8e520895b28c796447347de9d13224eee39c71a47ece39";
        assert_eq!(hex::encode(two.manifest()), digest);
        two.models.reverse();
        assert_eq!(hex::encode(two.manifest()), digest);
    }

    #[test]
    fn eight_models_fit_the_size_limit() {
        let mut offer = offer(1, u64::MAX);
        for seed in 0..7 {
            let mut model = offer.models[0].clone();
            model.model = ModelHash::from_bytes([seed; 32]);
            model.name = "x".repeat(limits::MODEL_NAME_BYTES);
            offer.models.push(model);
        }
        assert_eq!(offer.sign(&key(1)).verify(NOW).unwrap().offer(), &offer);
    }

    #[test]
    fn an_offer_signed_by_another_key_is_refused() {
        assert_eq!(offer(1, 7).sign(&key(2)).verify(NOW), Err(OfferError::BadSignature));
    }

    #[test]
    fn an_ended_offer_is_refused_at_the_very_millisecond() {
        let signed = offer(1, 7).sign(&key(1));
        let end = offer(1, 7).expires;
        assert!(signed.verify(Timestamp::from_unix_millis(end.as_unix_millis() - 1)).is_ok());
        assert_eq!(signed.verify(end), Err(OfferError::Expired));
    }

    #[test]
    fn implausible_times_are_refused() {
        let refused = |change: fn(&mut Offer)| {
            let mut offer = offer(1, 7);
            change(&mut offer);
            offer.sign(&key(1)).verify(NOW).unwrap_err()
        };
        assert_eq!(
            refused(|o| o.expires = NOW.after(Millis::from_secs(601))),
            OfferError::ImplausibleTimes
        );
        assert_eq!(
            refused(|o| {
                o.issued = NOW.after(Millis::from_secs(120));
                o.expires = NOW.after(Millis::from_secs(180));
            }),
            OfferError::ImplausibleTimes
        );
        assert_eq!(
            refused(|o| {
                o.issued = NOW.after(Millis::from_secs(30));
                o.expires = NOW.after(Millis::from_secs(20));
            }),
            OfferError::ImplausibleTimes
        );
    }

    #[test]
    fn malformed_contents_are_refused() {
        let refused = |change: fn(&mut Offer)| {
            let mut offer = offer(1, 7);
            change(&mut offer);
            offer.sign(&key(1)).verify(NOW).unwrap_err()
        };
        assert!(matches!(refused(|o| o.models.clear()), OfferError::Malformed(_)));
        assert!(matches!(refused(|o| o.region = "\u{1b}[31m".into()), OfferError::Malformed(_)));
        assert!(matches!(refused(|o| o.models[0].name = "x".repeat(65)), OfferError::Malformed(_)));
        assert_eq!(
            refused(|o| {
                let again = o.models[0].clone();
                o.models.push(again);
            }),
            OfferError::DuplicateModel
        );
        assert!(matches!(
            refused(|o| {
                for seed in 0..9 {
                    let mut model = o.models[0].clone();
                    model.model = ModelHash::from_bytes([seed; 32]);
                    model.name.clear();
                    model.quantisation.clear();
                    o.models.push(model);
                }
            }),
            OfferError::Malformed(_)
        ));
    }

    #[test]
    fn the_book_keeps_the_newest_of_each_provider() {
        let verified =
            |seed, sequence| Arc::new(offer(seed, sequence).sign(&key(seed)).verify(NOW).unwrap());
        let mut book = Book::default();
        assert_eq!(book.insert(verified(1, 5)), Insertion::New);
        assert_eq!(book.insert(verified(1, 4)), Insertion::NotNewer);
        assert_eq!(book.insert(verified(1, 5)), Insertion::NotNewer);
        assert_eq!(book.insert(verified(1, 6)), Insertion::Replaced);
        assert_eq!(book.insert(verified(2, 1)), Insertion::New);
        assert_eq!(book.offers_for(ModelHash::from_bytes([9; 32])).count(), 2);
        assert_eq!(book.offers_for(ModelHash::from_bytes([8; 32])).count(), 0);
        book.expire(NOW.after(Millis::from_secs(300)));
        assert_eq!(book.offers().count(), 0);
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
            prop_assert!(SignedOffer::from_bytes(bytes).verify(NOW).is_err());
        }

        #[test]
        fn a_flipped_bit_or_a_truncation_is_refused(at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<prop::sample::Index>()) {
            let original = offer(1, 7).sign(&key(1));
            let mut flipped = original.as_bytes().to_vec();
            let at = at.index(flipped.len());
            flipped[at] ^= 1 << bit;
            prop_assert!(SignedOffer::from_bytes(flipped).verify(NOW).is_err());
            let cut = cut.index(original.as_bytes().len());
            prop_assert!(SignedOffer::from_bytes(original.as_bytes()[..cut].to_vec()).verify(NOW).is_err());
        }
    }
}
