//! Messages inside an attached session.
//!
//! Owns: their layout and bounds. Must not: verify a signature; vouchers and receipts leave here
//! unverified and say so by their types.

use std::fmt;

use cocoon_proto::v1 as proto;
use prost::Message as _;

use super::{DecodeError, address, bytes32, bytes64, text};
use crate::channel::{JobTotal, SignedVoucher, Voucher};
use crate::identity::{JobId, ModelHash, NodeId, TonAddress};
use crate::job::{JobSpec, Prompt, ProviderRefusal, Role, Sampling, Turn};
use crate::limits;
use crate::receipt::SignedReceipt;
use crate::units::{Millis, NanoTon, Tokens};

/// Receipts have a fixed length of some hundred bytes; this only bounds what is copied.
const RECEIPT_BYTES: usize = 1_024;

/// A job as it travels.
#[derive(Clone, PartialEq)]
pub struct JobRequest {
    /// Its random id.
    pub job: JobId,
    /// The offer whose prices hold.
    pub offer_sequence: u64,
    /// What is asked; its bounds are checked.
    pub spec: JobSpec,
    /// Key of the commitments in the receipt.
    pub salt: [u8; 32],
}

impl fmt::Debug for JobRequest {
    /// Never the salt: with it a commitment can be tried against guessed texts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, offer_sequence, spec, salt: _ } = self;
        let mut shown = f.debug_struct("JobRequest");
        shown.field("job", job).field("offer_sequence", offer_sequence).field("spec", spec);
        shown.finish_non_exhaustive()
    }
}

/// What travels in a session.
#[derive(Clone, PartialEq)]
pub enum SessionMessage {
    /// Consumer: this vault pays.
    ChannelHello {
        /// Its address.
        vault: TonAddress,
        /// That the sender holds it: [`crate::channel::HolderClaim`].
        proof: [u8; 64],
    },
    /// Provider: this is what I see and hold.
    ChannelState {
        /// Epoch and limit of the allocation, if the ledger shows one.
        allocation: Option<(u32, NanoTon)>,
        /// What it has paid out.
        settled: NanoTon,
        /// The highest voucher that was accepted.
        latest: Option<SignedVoucher>,
        /// What it wants repaid before it serves another job.
        owed: NanoTon,
    },
    /// Consumer: do this.
    JobRequest(JobRequest),
    /// Consumer: this pays.
    Payment {
        /// The voucher.
        voucher: SignedVoucher,
        /// How much of it is for which job.
        total: Option<JobTotal>,
    },
    /// Consumer: stop.
    JobCancel {
        /// Which job.
        job: JobId,
    },
    /// Provider: it is taken.
    JobStarted {
        /// Which job.
        job: JobId,
        /// Tokens of the prompt.
        prompt: Tokens,
    },
    /// Provider: it is not taken.
    JobRefused {
        /// Which job.
        job: JobId,
        /// Why.
        refusal: ProviderRefusal,
    },
    /// Provider: some text.
    JobChunk {
        /// Which job.
        job: JobId,
        /// Complete UTF-8; may be empty.
        text: String,
        /// Tokens of the completion so far.
        completion: Tokens,
    },
    /// Provider: that was all.
    JobFinished {
        /// Which job.
        job: JobId,
        /// The receipt.
        receipt: SignedReceipt,
    },
    /// Provider: that voucher is not accepted.
    PaymentRefused {
        /// For which job it was.
        job: Option<JobId>,
        /// In words.
        reason: String,
    },
}

impl fmt::Debug for SessionMessage {
    /// Which message, for which job; never a text, be it a model's or a peer's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChannelHello { vault, proof: _ } => {
                f.debug_struct("ChannelHello").field("vault", vault).finish_non_exhaustive()
            }
            Self::ChannelState { allocation, settled, latest, owed } => f
                .debug_struct("ChannelState")
                .field("allocation", allocation)
                .field("settled", settled)
                .field("latest", latest)
                .field("owed", owed)
                .finish(),
            Self::JobRequest(request) => request.fmt(f),
            Self::Payment { voucher, total } => {
                f.debug_struct("Payment").field("voucher", voucher).field("total", total).finish()
            }
            Self::JobCancel { job } => f.debug_tuple("JobCancel").field(job).finish(),
            Self::JobStarted { job, prompt } => {
                f.debug_struct("JobStarted").field("job", job).field("prompt", prompt).finish()
            }
            Self::JobRefused { job, refusal: _ } => f.debug_tuple("JobRefused").field(job).finish(),
            Self::JobChunk { job, text, completion } => f
                .debug_struct("JobChunk")
                .field("job", job)
                .field("bytes", &text.len())
                .field("completion", completion)
                .finish(),
            Self::JobFinished { job, receipt: _ } => {
                f.debug_tuple("JobFinished").field(job).finish()
            }
            Self::PaymentRefused { job, reason: _ } => {
                f.debug_tuple("PaymentRefused").field(job).finish()
            }
        }
    }
}

impl SessionMessage {
    /// Whether a provider says this; otherwise a consumer does.
    pub const fn is_from_provider(&self) -> bool {
        match self {
            Self::ChannelHello { .. }
            | Self::JobRequest(_)
            | Self::Payment { .. }
            | Self::JobCancel { .. } => false,
            Self::ChannelState { .. }
            | Self::JobStarted { .. }
            | Self::JobRefused { .. }
            | Self::JobChunk { .. }
            | Self::JobFinished { .. }
            | Self::PaymentRefused { .. } => true,
        }
    }

    /// The bytes of one frame.
    pub fn encode(&self) -> Vec<u8> {
        proto::SessionFrame { body: Some(self.to_wire()) }.encode_to_vec()
    }

    fn to_wire(&self) -> proto::session_frame::Body {
        use proto::session_frame::Body;
        match self {
            Self::ChannelHello { vault, proof } => Body::ChannelHello(proto::ChannelHello {
                vault_workchain: vault.workchain.into(),
                vault_account: vault.hash.to_vec(),
                proof: proof.to_vec(),
            }),
            Self::ChannelState { allocation, settled, latest, owed } => {
                let (epoch, limit) = allocation.unwrap_or((0, NanoTon::ZERO));
                Body::ChannelState(proto::ChannelState {
                    allocated: allocation.is_some(),
                    epoch,
                    limit: limit.as_nano(),
                    settled: settled.as_nano(),
                    latest: latest.as_ref().map(voucher_to_wire),
                    owed: owed.as_nano(),
                })
            }
            Self::JobRequest(request) => Body::JobRequest(request_to_wire(request)),
            Self::Payment { voucher, total } => Body::Payment(proto::Payment {
                voucher: Some(voucher_to_wire(voucher)),
                job: total.map(|total| total.job.as_bytes().to_vec()).unwrap_or_default(),
                job_total: total.map_or(0, |total| total.total.as_nano()),
            }),
            Self::JobCancel { job } => {
                Body::JobCancel(proto::JobCancel { job: job.as_bytes().to_vec() })
            }
            Self::JobStarted { job, prompt } => Body::JobStarted(proto::JobStarted {
                job: job.as_bytes().to_vec(),
                prompt_tokens: prompt.get(),
            }),
            Self::JobRefused { job, refusal } => Body::JobRefused(proto::JobRefused {
                job: job.as_bytes().to_vec(),
                reason: Some(refusal_to_wire(refusal)),
            }),
            Self::JobChunk { job, text, completion } => Body::JobChunk(proto::JobChunk {
                job: job.as_bytes().to_vec(),
                text: text.clone(),
                completion_tokens: completion.get(),
            }),
            Self::JobFinished { job, receipt } => Body::JobFinished(proto::JobFinished {
                job: job.as_bytes().to_vec(),
                receipt: Some(proto::SignedReceipt {
                    receipt: receipt.bytes.clone(),
                    signature: receipt.signature.to_vec(),
                }),
            }),
            Self::PaymentRefused { job, reason } => Body::PaymentRefused(proto::PaymentRefused {
                job: job.map(|job| job.as_bytes().to_vec()).unwrap_or_default(),
                reason: reason.clone(),
            }),
        }
    }

    /// The meaning of one frame.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > limits::FRAME_BYTES {
            let (length, limit) = (bytes.len(), limits::FRAME_BYTES);
            return Err(DecodeError::TooLarge { length, limit });
        }
        let frame = proto::SessionFrame::decode(bytes).map_err(|_| DecodeError::Malformed)?;
        Self::from_wire(frame.body.ok_or(DecodeError::Missing { field: "body" })?)
    }

    fn from_wire(body: proto::session_frame::Body) -> Result<Self, DecodeError> {
        use proto::session_frame::Body;
        Ok(match body {
            Body::ChannelHello(wire) => Self::ChannelHello {
                vault: address("vault_account", wire.vault_workchain, &wire.vault_account)?,
                proof: bytes64("proof", &wire.proof)?,
            },
            Body::ChannelState(wire) => Self::ChannelState {
                allocation: wire.allocated.then(|| (wire.epoch, NanoTon::from_nano(wire.limit))),
                settled: NanoTon::from_nano(wire.settled),
                latest: wire.latest.map(voucher_from_wire).transpose()?,
                owed: NanoTon::from_nano(wire.owed),
            },
            Body::JobRequest(wire) => Self::JobRequest(request_from_wire(wire)?),
            Body::Payment(wire) => {
                let total = optional_job(&wire.job)?.map(|job| {
                    let total = NanoTon::from_nano(wire.job_total);
                    JobTotal { job, total }
                });
                let voucher = wire.voucher.ok_or(DecodeError::Missing { field: "voucher" })?;
                Self::Payment { voucher: voucher_from_wire(voucher)?, total }
            }
            Body::JobCancel(wire) => Self::JobCancel { job: job_id(&wire.job)? },
            Body::JobStarted(wire) => Self::JobStarted {
                job: job_id(&wire.job)?,
                prompt: Tokens::new(wire.prompt_tokens),
            },
            Body::JobRefused(wire) => Self::JobRefused {
                job: job_id(&wire.job)?,
                refusal: refusal_from_wire(wire.reason)?,
            },
            Body::JobChunk(wire) => {
                if wire.text.len() > limits::CHUNK_BYTES {
                    let (length, limit) = (wire.text.len(), limits::CHUNK_BYTES);
                    return Err(DecodeError::TooLong { field: "text", length, limit });
                }
                Self::JobChunk {
                    job: job_id(&wire.job)?,
                    text: wire.text,
                    completion: Tokens::new(wire.completion_tokens),
                }
            }
            Body::JobFinished(wire) => {
                let receipt = wire.receipt.ok_or(DecodeError::Missing { field: "receipt" })?;
                if receipt.receipt.len() > RECEIPT_BYTES {
                    let (length, limit) = (receipt.receipt.len(), RECEIPT_BYTES);
                    return Err(DecodeError::TooLong { field: "receipt", length, limit });
                }
                let signature = bytes64("signature", &receipt.signature)?;
                let receipt = SignedReceipt { bytes: receipt.receipt, signature };
                Self::JobFinished { job: job_id(&wire.job)?, receipt }
            }
            Body::PaymentRefused(wire) => Self::PaymentRefused {
                job: optional_job(&wire.job)?,
                reason: text("reason", wire.reason, limits::PEER_TEXT_BYTES)?,
            },
        })
    }
}

fn job_id(bytes: &[u8]) -> Result<JobId, DecodeError> {
    Ok(JobId::from_bytes(bytes32("job", bytes)?))
}

fn optional_job(bytes: &[u8]) -> Result<Option<JobId>, DecodeError> {
    if bytes.is_empty() { Ok(None) } else { job_id(bytes).map(Some) }
}

fn voucher_to_wire(signed: &SignedVoucher) -> proto::SignedVoucher {
    let voucher = &signed.voucher;
    proto::SignedVoucher {
        voucher: Some(proto::Voucher {
            vault_workchain: voucher.vault.workchain.into(),
            vault_account: voucher.vault.hash.to_vec(),
            provider: voucher.provider.as_bytes().to_vec(),
            epoch: voucher.epoch,
            cumulative: voucher.cumulative.as_nano(),
            receipts_root: voucher.receipts_root.to_vec(),
        }),
        signature: signed.signature.to_vec(),
    }
}

fn voucher_from_wire(wire: proto::SignedVoucher) -> Result<SignedVoucher, DecodeError> {
    let voucher = wire.voucher.ok_or(DecodeError::Missing { field: "voucher" })?;
    Ok(SignedVoucher {
        voucher: Voucher {
            vault: address("vault_account", voucher.vault_workchain, &voucher.vault_account)?,
            provider: NodeId::from_bytes(bytes32("provider", &voucher.provider)?),
            epoch: voucher.epoch,
            cumulative: NanoTon::from_nano(voucher.cumulative),
            receipts_root: bytes32("receipts_root", &voucher.receipts_root)?,
        },
        signature: bytes64("signature", &wire.signature)?,
    })
}

fn request_to_wire(request: &JobRequest) -> proto::JobRequest {
    let JobSpec { model, prompt, sampling, stop, max_completion } = &request.spec;
    let kind = match prompt {
        Prompt::Text(text) => proto::prompt::Kind::Text(text.clone()),
        Prompt::Chat(turns) => {
            let turns = turns.iter().map(|turn| proto::Turn {
                role: match turn.role {
                    Role::System => proto::Role::System,
                    Role::User => proto::Role::User,
                    Role::Assistant => proto::Role::Assistant,
                }
                .into(),
                content: turn.content.clone(),
            });
            proto::prompt::Kind::Chat(proto::Chat { turns: turns.collect() })
        }
    };
    proto::JobRequest {
        job: request.job.as_bytes().to_vec(),
        model: model.as_bytes().to_vec(),
        offer_sequence: request.offer_sequence,
        prompt: Some(proto::Prompt { kind: Some(kind) }),
        sampling: Some(proto::Sampling {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            min_p: sampling.min_p,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
            seed: sampling.seed,
        }),
        stop: stop.clone(),
        max_completion: max_completion.get(),
        salt: request.salt.to_vec(),
    }
}

fn request_from_wire(wire: proto::JobRequest) -> Result<JobRequest, DecodeError> {
    let sampling = wire.sampling.ok_or(DecodeError::Missing { field: "sampling" })?;
    let kind = wire.prompt.and_then(|prompt| prompt.kind);
    let prompt = match kind.ok_or(DecodeError::Missing { field: "prompt" })? {
        proto::prompt::Kind::Text(text) => Prompt::Text(text),
        proto::prompt::Kind::Chat(chat) => {
            Prompt::Chat(chat.turns.into_iter().map(turn_from_wire).collect::<Result<_, _>>()?)
        }
    };
    let spec = JobSpec {
        model: ModelHash::from_bytes(bytes32("model", &wire.model)?),
        prompt,
        sampling: Sampling {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            min_p: sampling.min_p,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
            seed: sampling.seed,
        },
        stop: wire.stop,
        max_completion: Tokens::new(wire.max_completion),
    };
    spec.check().map_err(DecodeError::Job)?;
    Ok(JobRequest {
        job: job_id(&wire.job)?,
        offer_sequence: wire.offer_sequence,
        spec,
        salt: bytes32("salt", &wire.salt)?,
    })
}

fn turn_from_wire(wire: proto::Turn) -> Result<Turn, DecodeError> {
    let role = match proto::Role::try_from(wire.role) {
        Ok(proto::Role::System) => Role::System,
        Ok(proto::Role::User) => Role::User,
        Ok(proto::Role::Assistant) => Role::Assistant,
        Ok(proto::Role::Unspecified) | Err(_) => {
            return Err(DecodeError::OutOfRange { field: "role" });
        }
    };
    Ok(Turn { role, content: wire.content })
}

fn refusal_to_wire(refusal: &ProviderRefusal) -> proto::job_refused::Reason {
    use proto::job_refused::Reason;
    let plain = |plain: proto::PlainRefusal| Reason::Plain(plain.into());
    match refusal {
        ProviderRefusal::Busy { retry_after } => {
            Reason::Busy(proto::Busy { retry_after_ms: retry_after.get() })
        }
        ProviderRefusal::UnknownModel => plain(proto::PlainRefusal::UnknownModel),
        ProviderRefusal::ContextExceeded { prompt, context } => {
            let (prompt, context) = (prompt.get(), context.get());
            Reason::ContextExceeded(proto::ContextExceeded { prompt, context })
        }
        ProviderRefusal::BadRequest { reason } => Reason::BadRequest(reason.clone()),
        ProviderRefusal::NoHeadroom { headroom, needed } => {
            let (headroom, needed) = (headroom.as_nano(), needed.as_nano());
            Reason::NoHeadroom(proto::NoHeadroom { headroom, needed })
        }
        ProviderRefusal::StaleOffer => plain(proto::PlainRefusal::StaleOffer),
        ProviderRefusal::Draining => plain(proto::PlainRefusal::Draining),
        ProviderRefusal::EngineFailed => plain(proto::PlainRefusal::EngineFailed),
    }
}

fn refusal_from_wire(
    wire: Option<proto::job_refused::Reason>,
) -> Result<ProviderRefusal, DecodeError> {
    use proto::job_refused::Reason;
    Ok(match wire.ok_or(DecodeError::Missing { field: "reason" })? {
        Reason::Busy(busy) => {
            ProviderRefusal::Busy { retry_after: Millis::new(busy.retry_after_ms) }
        }
        Reason::ContextExceeded(it) => ProviderRefusal::ContextExceeded {
            prompt: Tokens::new(it.prompt),
            context: Tokens::new(it.context),
        },
        Reason::NoHeadroom(it) => ProviderRefusal::NoHeadroom {
            headroom: NanoTon::from_nano(it.headroom),
            needed: NanoTon::from_nano(it.needed),
        },
        Reason::BadRequest(reason) => {
            let reason = text("bad_request", reason, limits::PEER_TEXT_BYTES)?;
            ProviderRefusal::BadRequest { reason }
        }
        Reason::Plain(plain) => match proto::PlainRefusal::try_from(plain) {
            Ok(proto::PlainRefusal::UnknownModel) => ProviderRefusal::UnknownModel,
            Ok(proto::PlainRefusal::StaleOffer) => ProviderRefusal::StaleOffer,
            Ok(proto::PlainRefusal::Draining) => ProviderRefusal::Draining,
            Ok(proto::PlainRefusal::EngineFailed) => ProviderRefusal::EngineFailed,
            Ok(proto::PlainRefusal::Unspecified) | Err(_) => {
                return Err(DecodeError::OutOfRange { field: "reason" });
            }
        },
    })
}
