//! What peers send around the evidence, and what files and the store hold of it: frames of the
//! channel, receipts, proofs, vouchers, accounts.
//!
//! Owns: what must hold for any such bytes, and records that are understood.
//! Must not: check signatures; the machines of `protocol` do.

use std::fmt::Debug;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::channel::{ChannelId, PayeeState, PayerState, SignedVoucher, Voucher};
use cocoon_protocol::identity::{JobId, ModelHash, NodeId, ReceiptHash, TonAddress};
use cocoon_protocol::job::{FinishReason, Usage};
use cocoon_protocol::receipt::{InclusionProof, Log, Peaks, Receipt, SignedReceipt};
use cocoon_protocol::record::{Interrupted, Logged, Posting, StoredReceipt};
use cocoon_protocol::units::{NanoTon, PricePerMillion, Prices, Timestamp, Tokens};

use super::sources::now;
use crate::channel::frame;

/// Reads what may be a record; one that is read has one spelling.
fn spelled<T: Debug, E>(
    data: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let record = decode(data).ok()?;
    assert_eq!(encode(&record), data, "two spellings of {record:?}");
    Some(record)
}

/// Frames inside the TLS stream: what is read, written again, is what came, so no length is read in
/// two ways and nothing behind a fault is read. Receipts, proofs, vouchers and accounts, as they are
/// kept and handed around: one spelling for one meaning.
pub fn records(data: &[u8]) {
    if let Some((written, end)) = now(frame::rewrite(data)) {
        assert_eq!(data.get(..written.len()), Some(&*written), "two spellings of one frame");
        assert_eq!(end.is_ok(), written.len() == data.len(), "bytes are left, or an error is none");
    }
    if let Some(proof) = spelled(data, InclusionProof::decode, InclusionProof::encode) {
        let (receipt, root) = (ReceiptHash::from_bytes([1; 32]), [2; 32]);
        assert!(proof.verify(&receipt, &root).is_err(), "a proof of what is in no log");
    }
    if let Some(mut peaks) = spelled(data, Peaks::decode, Peaks::encode) {
        let next = peaks.root_with(ReceiptHash::from_bytes([3; 32]));
        peaks.append(ReceiptHash::from_bytes([3; 32]));
        assert_eq!(peaks.root(), next, "a root that does not follow");
    }
    if let Some(receipt) = spelled(data, SignedReceipt::decode, SignedReceipt::encode) {
        assert!(receipt.verify().is_err() || signed().is_some_and(|known| known == receipt));
    }
    spelled(data, Receipt::decode, Receipt::encode);
    spelled(data, SignedVoucher::decode, SignedVoucher::encode);
    // This one has a first version too, which is read, and written as the second.
    if let Ok(state) = PayerState::decode(data) {
        spelled(&state.encode(), PayerState::decode, PayerState::encode);
    }
    spelled(data, PayeeState::decode, PayeeState::encode);
    spelled(data, Posting::decode, Posting::encode);
    spelled(data, Logged::decode, Logged::encode);
    spelled(data, StoredReceipt::decode, StoredReceipt::encode);
    spelled(data, Interrupted::decode, Interrupted::encode);
}

fn receipt() -> Receipt {
    let prices = Prices {
        prompt: PricePerMillion::from_nano(1_000_000),
        completion: PricePerMillion::from_nano(2_000_000),
    };
    Receipt {
        job: JobId::from_bytes([1; 32]),
        provider: super::maintainer().id(),
        vault: TonAddress { workchain: 0, hash: [3; 32] },
        epoch: 4,
        model: ModelHash::from_bytes([5; 32]),
        tier: Tier::Attested,
        evidence_digest: [6; 32],
        prompt_commitment: [7; 32],
        completion_commitment: [8; 32],
        sampling_digest: [9; 32],
        usage: Usage { prompt: Tokens::new(10), completion: Tokens::new(11) },
        prices,
        price: NanoTon::from_nano(32),
        fee: NanoTon::from_nano(1),
        started: Timestamp::from_unix_secs(1_800_000_000),
        ended: Timestamp::from_unix_secs(1_800_000_001),
        finish: FinishReason::Stop,
    }
}

fn signed() -> Option<SignedReceipt> {
    use cocoon_protocol::identity::Domain;
    let bytes = receipt().encode();
    let signature = super::maintainer().sign(Domain::Receipt, &bytes);
    let signed = SignedReceipt { bytes, signature };
    signed.verify().is_ok().then_some(signed)
}

pub(super) fn record_seeds() -> Vec<Vec<u8>> {
    let channel = ChannelId {
        vault: TonAddress { workchain: -1, hash: [2; 32] },
        provider: NodeId::from_bytes([3; 32]),
        epoch: 4,
    };
    let leaves = [[5; 32], [6; 32], [7; 32]].map(ReceiptHash::from_bytes);
    let mut log = Log::default();
    let mut peaks = Peaks::default();
    for leaf in leaves {
        log.append(leaf);
        peaks.append(leaf);
    }
    let voucher = Voucher {
        vault: channel.vault,
        provider: channel.provider,
        epoch: channel.epoch,
        cumulative: NanoTon::from_nano(8),
        receipts_root: peaks.root(),
    };
    let mut seeds = vec![
        peaks.encode(),
        Logged { channel, index: 1, receipt: ReceiptHash::from_bytes([9; 32]) }.encode(),
        SignedVoucher { voucher, signature: [10; 64] }.encode(),
        receipt().encode(),
        Interrupted {
            job: JobId::from_bytes([11; 32]),
            provider: NodeId::from_bytes([12; 32]),
            paid: NanoTon::from_nano(13),
            at: Timestamp::from_unix_secs(14),
        }
        .encode(),
    ];
    let [_, leaf, _] = leaves;
    seeds.extend(log.prove(leaf, 3).map(|proof| proof.encode()));
    seeds.extend(signed().map(|receipt| receipt.encode()));
    seeds.extend(
        signed().map(|receipt| StoredReceipt { receipt, salt: [15; 32], provided: true }.encode()),
    );
    seeds.extend(channel_frames());
    seeds
}

fn channel_frames() -> Vec<Vec<u8>> {
    let frame = |kind: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        [&[kind], &length[..], payload].concat()
    };
    let request = super::attest_message_seeds().into_iter().next().unwrap_or_default();
    let quiet = [3, 4, 5].map(|kind| frame(kind, b"")).concat();
    vec![
        [frame(1, &request), frame(0, b"a job"), frame(0, b"")].concat(),
        [quiet, frame(2, &[7; 5_000])].concat(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_understood() {
        assert_eq!(record_seeds().len(), 10);
        for seed in channel_frames() {
            let (written, end) = now(frame::rewrite(&seed)).unwrap();
            assert!(end.is_ok() && written == seed);
        }
    }
}
