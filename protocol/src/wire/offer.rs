//! Offers on the wire.
//!
//! Owns: layout and bounds of an offer. Must not: verify it; [`crate::offer`] does.

use cocoon_proto::v1 as proto;
use prost::Message as _;

use super::{DecodeError, address, bytes32, bytes64, text, tier_from_wire, tier_to_wire};
use crate::identity::{ModelHash, NodeId};
use crate::limits;
use crate::offer::{Load, ModelOffer, Offer};
use crate::units::{PricePerMillion, Prices, Timestamp, Tokens};

/// Longest region hint, in bytes.
const REGION_BYTES: usize = 16;
/// Longest name of an engine, in bytes.
const ENGINE_BYTES: usize = 64;
/// Longest name of a quantisation, in bytes.
const QUANTISATION_BYTES: usize = 16;

/// The bytes that a provider signs.
pub fn encode_offer(offer: &Offer) -> Vec<u8> {
    let models = offer.models.iter().map(|model| proto::ModelOffer {
        model: model.model.as_bytes().to_vec(),
        name: model.name.clone(),
        quantisation: model.quantisation.clone(),
        context_tokens: model.context.get(),
        prompt_price: model.prices.prompt.as_nano(),
        completion_price: model.prices.completion.as_nano(),
    });
    let load = match offer.load {
        Load::Idle => proto::Load::Idle,
        Load::Busy => proto::Load::Busy,
        Load::Full => proto::Load::Full,
        Load::Draining => proto::Load::Draining,
    };
    let evidence = offer.evidence_digest.map(|digest| digest.to_vec()).unwrap_or_default();
    proto::Offer {
        provider: offer.provider.as_bytes().to_vec(),
        sequence: offer.sequence,
        issued_ms: offer.issued.as_unix_millis(),
        expires_ms: offer.expires.as_unix_millis(),
        network: offer.network,
        models: models.collect(),
        tier: tier_to_wire(offer.tier).into(),
        evidence_digest: evidence,
        payout_workchain: offer.payout.workchain.into(),
        payout_account: offer.payout.hash.to_vec(),
        load: load.into(),
        region: offer.region.clone(),
        engine: offer.engine.clone(),
    }
    .encode_to_vec()
}

/// The meaning of an offer's signed bytes.
pub fn decode_offer(bytes: &[u8]) -> Result<Offer, DecodeError> {
    let wire = proto::Offer::decode(bytes).map_err(|_| DecodeError::Malformed)?;
    if wire.models.is_empty() {
        return Err(DecodeError::Missing { field: "models" });
    }
    if wire.models.len() > limits::OFFER_MODELS {
        let (length, limit) = (wire.models.len(), limits::OFFER_MODELS);
        return Err(DecodeError::TooLong { field: "models", length, limit });
    }
    let evidence_digest = match wire.evidence_digest.as_slice() {
        [] => None,
        digest => Some(bytes32("evidence_digest", digest)?),
    };
    let load = match proto::Load::try_from(wire.load) {
        Ok(proto::Load::Idle) => Load::Idle,
        Ok(proto::Load::Busy) => Load::Busy,
        Ok(proto::Load::Full) => Load::Full,
        Ok(proto::Load::Draining) => Load::Draining,
        Ok(proto::Load::Unspecified) | Err(_) => {
            return Err(DecodeError::OutOfRange { field: "load" });
        }
    };
    Ok(Offer {
        provider: NodeId::from_bytes(bytes32("provider", &wire.provider)?),
        sequence: wire.sequence,
        issued: Timestamp::from_unix_millis(wire.issued_ms),
        expires: Timestamp::from_unix_millis(wire.expires_ms),
        network: wire.network,
        models: wire.models.into_iter().map(decode_model).collect::<Result<_, _>>()?,
        tier: tier_from_wire("tier", wire.tier)?,
        evidence_digest,
        payout: address("payout_account", wire.payout_workchain, &wire.payout_account)?,
        load,
        region: text("region", wire.region, REGION_BYTES)?,
        engine: text("engine", wire.engine, ENGINE_BYTES)?,
    })
}

fn decode_model(wire: proto::ModelOffer) -> Result<ModelOffer, DecodeError> {
    Ok(ModelOffer {
        model: ModelHash::from_bytes(bytes32("model", &wire.model)?),
        name: text("name", wire.name, limits::MODEL_NAME_BYTES)?,
        quantisation: text("quantisation", wire.quantisation, QUANTISATION_BYTES)?,
        context: Tokens::new(wire.context_tokens),
        prices: Prices {
            prompt: PricePerMillion::from_nano(wire.prompt_price),
            completion: PricePerMillion::from_nano(wire.completion_price),
        },
    })
}

/// An offer's bytes with their signature, as they travel.
pub fn encode_signed_offer(offer: &[u8], signature: &[u8; 64]) -> Vec<u8> {
    proto::SignedOffer { offer: offer.to_vec(), signature: signature.to_vec() }.encode_to_vec()
}

/// Splits what travels into the signed bytes and the signature.
pub fn decode_signed_offer(bytes: &[u8]) -> Result<(Vec<u8>, [u8; 64]), DecodeError> {
    if bytes.len() > limits::OFFER_BYTES {
        let (length, limit) = (bytes.len(), limits::OFFER_BYTES);
        return Err(DecodeError::TooLarge { length, limit });
    }
    let wire = proto::SignedOffer::decode(bytes).map_err(|_| DecodeError::Malformed)?;
    let signature = bytes64("signature", &wire.signature)?;
    Ok((wire.offer, signature))
}
