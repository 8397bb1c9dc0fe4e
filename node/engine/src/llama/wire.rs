//! What the node and its worker say to each other over two pipes.
//!
//! Owns: the messages, their bytes, and the bound of a frame: `u32be(length) ‖ tag ‖ fields`.
//! Must not: be a format for anything that outlives the process: both ends are the same binary.

use std::io::{self, Read, Write};

use bytes::{Buf, BufMut};
use cocoon_protocol::identity::ModelHash;
use cocoon_protocol::job::{FinishReason, JobSpec, Prompt, Role, Sampling, Turn, Usage};
use cocoon_protocol::limits;
use cocoon_protocol::units::{Timestamp, Tokens};

use crate::port::{EngineFailure, EngineJob, PrefixScope, SubmitError};

/// The largest frame: a job with the largest prompt, as on the network. A larger one is malformed.
const FRAME_BYTES: usize = limits::FRAME_BYTES;

/// Names a job between one node process and one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct JobNumber(pub(super) u64);

/// What a worker is to load. Always the first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoadRequest {
    pub(super) path: String,
    pub(super) model: ModelHash,
    pub(super) context: Tokens,
    pub(super) cells: Tokens,
    pub(super) slots: u32,
    pub(super) threads: u32,
    pub(super) gpu_layers: u32,
    /// Load a copy in memory, so that what was hashed is what is loaded.
    pub(super) private: bool,
}

/// From the node to the worker.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    Load(LoadRequest),
    Job { number: JobNumber, job: EngineJob },
    Grant { number: JobNumber, total: Tokens },
    Cancel { number: JobNumber },
    Ping { nonce: u64 },
}

/// Why a worker does not load a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadFailure {
    /// The file cannot be read.
    #[error("the model file cannot be read")]
    Unreadable,
    /// The file is not the expected model.
    #[error(
        "the model file has the hash {actual}, which is not the expected one: it was changed, or is \
         another file"
    )]
    WrongHash {
        /// What its hash is.
        actual: ModelHash,
    },
    /// llama.cpp cannot load the file, or there is not enough memory.
    #[error(
        "llama.cpp cannot load the file: it may be damaged, of an unknown architecture, or too large for the memory"
    )]
    NotLoadable,
    /// The model's chat template cannot be compiled.
    #[error("the model's chat template cannot be compiled")]
    BadTemplate,
    /// The context cannot be made: more tokens or slots than memory.
    #[error("there is not enough memory for the context; set a smaller one")]
    NoContext,
}

/// From the worker to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// It serves the weights of this hash, which it has computed itself.
    Ready {
        context: Tokens,
        model: ModelHash,
    },
    LoadFailed(LoadFailure),
    Started {
        number: JobNumber,
        prompt: Tokens,
    },
    Text {
        number: JobNumber,
        text: String,
        completion: Tokens,
    },
    Finished {
        number: JobNumber,
        reason: FinishReason,
        usage: Usage,
    },
    Failed {
        number: JobNumber,
        failure: EngineFailure,
    },
    Pong {
        nonce: u64,
    },
}

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the pipe failed")]
    Io(#[source] io::Error),
    #[error("a frame is too large")]
    TooLarge,
    #[error("a frame is malformed")]
    Malformed,
}

/// A message that has bytes.
pub(super) trait Message: Sized {
    fn encode(&self, out: &mut Vec<u8>);
    /// `None` when the bytes are no message.
    fn decode(bytes: &mut &[u8]) -> Option<Self>;
}

/// Writes one frame. The caller flushes.
pub(super) fn write(sink: &mut impl Write, message: &impl Message) -> Result<(), FrameError> {
    let mut frame = vec![0; 4];
    message.encode(&mut frame);
    let length = frame.len().saturating_sub(4);
    if length > FRAME_BYTES {
        return Err(FrameError::TooLarge);
    }
    let prefix = u32::try_from(length).map_err(|_| FrameError::TooLarge)?.to_be_bytes();
    if let Some(front) = frame.first_chunk_mut::<4>() {
        *front = prefix;
    }
    sink.write_all(&frame).map_err(FrameError::Io)
}

/// Reads one frame; `None` when the other end has closed the pipe between two frames.
pub(super) fn read<M: Message>(source: &mut impl Read) -> Result<Option<M>, FrameError> {
    let mut prefix = [0; 4];
    match source.read_exact(&mut prefix) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(FrameError::Io(error)),
    }
    let length = usize::try_from(u32::from_be_bytes(prefix)).map_err(|_| FrameError::TooLarge)?;
    if length > FRAME_BYTES {
        return Err(FrameError::TooLarge);
    }
    let mut bytes = vec![0; length];
    source.read_exact(&mut bytes).map_err(FrameError::Io)?;
    let mut rest = bytes.as_slice();
    let message = M::decode(&mut rest).ok_or(FrameError::Malformed)?;
    if rest.is_empty() { Ok(Some(message)) } else { Err(FrameError::Malformed) }
}

impl Message for Command {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Load(load) => {
                out.put_u8(0);
                put_text(out, &load.path);
                out.put_slice(load.model.as_bytes());
                out.put_u32(load.context.get());
                out.put_u32(load.cells.get());
                out.put_u32(load.slots);
                out.put_u32(load.threads);
                out.put_u32(load.gpu_layers);
                out.put_u8(u8::from(load.private));
            }
            Self::Job { number, job } => {
                out.put_u8(1);
                out.put_u64(number.0);
                put_job(out, job);
            }
            Self::Grant { number, total } => {
                out.put_u8(2);
                out.put_u64(number.0);
                out.put_u32(total.get());
            }
            Self::Cancel { number } => {
                out.put_u8(3);
                out.put_u64(number.0);
            }
            Self::Ping { nonce } => {
                out.put_u8(4);
                out.put_u64(*nonce);
            }
        }
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(match bytes.try_get_u8().ok()? {
            0 => Self::Load(LoadRequest {
                path: take_text(bytes)?,
                model: ModelHash::from_bytes(take_array(bytes)?),
                context: take_tokens(bytes)?,
                cells: take_tokens(bytes)?,
                slots: bytes.try_get_u32().ok()?,
                threads: bytes.try_get_u32().ok()?,
                gpu_layers: bytes.try_get_u32().ok()?,
                private: match bytes.try_get_u8().ok()? {
                    0 => false,
                    1 => true,
                    _ => return None,
                },
            }),
            1 => Self::Job { number: take_number(bytes)?, job: take_job(bytes)? },
            2 => Self::Grant { number: take_number(bytes)?, total: take_tokens(bytes)? },
            3 => Self::Cancel { number: take_number(bytes)? },
            4 => Self::Ping { nonce: bytes.try_get_u64().ok()? },
            _ => return None,
        })
    }
}

impl Message for Report {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ready { context, model } => {
                out.put_u8(0);
                out.put_u32(context.get());
                out.put_slice(model.as_bytes());
            }
            Self::LoadFailed(failure) => {
                out.put_u8(1);
                put_load_failure(out, *failure);
            }
            Self::Started { number, prompt } => {
                out.put_u8(2);
                out.put_u64(number.0);
                out.put_u32(prompt.get());
            }
            Self::Text { number, text, completion } => {
                out.put_u8(3);
                out.put_u64(number.0);
                put_text(out, text);
                out.put_u32(completion.get());
            }
            Self::Finished { number, reason, usage } => {
                out.put_u8(4);
                out.put_u64(number.0);
                out.put_u8(reason_code(*reason));
                out.put_u32(usage.prompt.get());
                out.put_u32(usage.completion.get());
            }
            Self::Failed { number, failure } => {
                out.put_u8(5);
                out.put_u64(number.0);
                put_failure(out, failure);
            }
            Self::Pong { nonce } => {
                out.put_u8(6);
                out.put_u64(*nonce);
            }
        }
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(match bytes.try_get_u8().ok()? {
            0 => Self::Ready {
                context: take_tokens(bytes)?,
                model: ModelHash::from_bytes(take_array(bytes)?),
            },
            1 => Self::LoadFailed(take_load_failure(bytes)?),
            2 => Self::Started { number: take_number(bytes)?, prompt: take_tokens(bytes)? },
            3 => Self::Text {
                number: take_number(bytes)?,
                text: take_text(bytes)?,
                completion: take_tokens(bytes)?,
            },
            4 => Self::Finished {
                number: take_number(bytes)?,
                reason: take_reason(bytes)?,
                usage: Usage { prompt: take_tokens(bytes)?, completion: take_tokens(bytes)? },
            },
            5 => Self::Failed { number: take_number(bytes)?, failure: take_failure(bytes)? },
            6 => Self::Pong { nonce: bytes.try_get_u64().ok()? },
            _ => return None,
        })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // A text of 4 GiB makes the frame too large anyway, whatever its length says.
    out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.put_slice(text.as_bytes());
}

fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (array, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*array)
}

fn take_tokens(bytes: &mut &[u8]) -> Option<Tokens> {
    bytes.try_get_u32().ok().map(Tokens::new)
}

fn take_number(bytes: &mut &[u8]) -> Option<JobNumber> {
    bytes.try_get_u64().ok().map(JobNumber)
}

fn put_job(out: &mut Vec<u8>, job: &EngineJob) {
    let spec = &job.spec;
    out.put_slice(spec.model.as_bytes());
    match &spec.prompt {
        Prompt::Text(text) => {
            out.put_u8(0);
            put_text(out, text);
        }
        Prompt::Chat(turns) => {
            out.put_u8(1);
            out.put_u32(u32::try_from(turns.len()).unwrap_or(u32::MAX));
            for turn in turns {
                out.put_u8(role_code(turn.role));
                put_text(out, &turn.content);
            }
        }
    }
    let sampling = &spec.sampling;
    out.put_f32(sampling.temperature);
    out.put_f32(sampling.top_p);
    out.put_u32(sampling.top_k);
    out.put_f32(sampling.min_p);
    out.put_f32(sampling.frequency_penalty);
    out.put_f32(sampling.presence_penalty);
    out.put_u64(sampling.seed);
    out.put_u32(u32::try_from(spec.stop.len()).unwrap_or(u32::MAX));
    for stop in &spec.stop {
        put_text(out, stop);
    }
    out.put_u32(spec.max_completion.get());
    out.put_slice(job.scope.as_bytes());
    out.put_u64(job.now.as_unix_millis());
}

fn take_job(bytes: &mut &[u8]) -> Option<EngineJob> {
    let model = ModelHash::from_bytes(take_array(bytes)?);
    let prompt = match bytes.try_get_u8().ok()? {
        0 => Prompt::Text(take_text(bytes)?),
        1 => {
            let turns = bytes.try_get_u32().ok()?;
            let turn = |bytes: &mut &[u8]| {
                Some(Turn { role: take_role(bytes)?, content: take_text(bytes)? })
            };
            Prompt::Chat((0..turns).map(|_| turn(bytes)).collect::<Option<_>>()?)
        }
        _ => return None,
    };
    let sampling = Sampling {
        temperature: bytes.try_get_f32().ok()?,
        top_p: bytes.try_get_f32().ok()?,
        top_k: bytes.try_get_u32().ok()?,
        min_p: bytes.try_get_f32().ok()?,
        frequency_penalty: bytes.try_get_f32().ok()?,
        presence_penalty: bytes.try_get_f32().ok()?,
        seed: bytes.try_get_u64().ok()?,
    };
    let stops = bytes.try_get_u32().ok()?;
    let stop = (0..stops).map(|_| take_text(bytes)).collect::<Option<_>>()?;
    let max_completion = take_tokens(bytes)?;
    Some(EngineJob {
        spec: JobSpec { model, prompt, sampling, stop, max_completion },
        scope: PrefixScope::from_bytes(take_array(bytes)?),
        now: Timestamp::from_unix_millis(bytes.try_get_u64().ok()?),
    })
}

const fn role_code(role: Role) -> u8 {
    match role {
        Role::System => 0,
        Role::User => 1,
        Role::Assistant => 2,
    }
}

fn take_role(bytes: &mut &[u8]) -> Option<Role> {
    Some(match bytes.try_get_u8().ok()? {
        0 => Role::System,
        1 => Role::User,
        2 => Role::Assistant,
        _ => return None,
    })
}

const fn reason_code(reason: FinishReason) -> u8 {
    match reason {
        FinishReason::Stop => 0,
        FinishReason::Length => 1,
        FinishReason::Cancelled => 2,
        FinishReason::Unpaid => 3,
        FinishReason::Failed => 4,
        FinishReason::Draining => 5,
    }
}

fn take_reason(bytes: &mut &[u8]) -> Option<FinishReason> {
    Some(match bytes.try_get_u8().ok()? {
        0 => FinishReason::Stop,
        1 => FinishReason::Length,
        2 => FinishReason::Cancelled,
        3 => FinishReason::Unpaid,
        4 => FinishReason::Failed,
        5 => FinishReason::Draining,
        _ => return None,
    })
}

fn put_load_failure(out: &mut Vec<u8>, failure: LoadFailure) {
    match failure {
        LoadFailure::Unreadable => out.put_u8(0),
        LoadFailure::WrongHash { actual } => {
            out.put_u8(1);
            out.put_slice(actual.as_bytes());
        }
        LoadFailure::NotLoadable => out.put_u8(2),
        LoadFailure::BadTemplate => out.put_u8(3),
        LoadFailure::NoContext => out.put_u8(4),
    }
}

fn take_load_failure(bytes: &mut &[u8]) -> Option<LoadFailure> {
    Some(match bytes.try_get_u8().ok()? {
        0 => LoadFailure::Unreadable,
        1 => LoadFailure::WrongHash { actual: ModelHash::from_bytes(take_array(bytes)?) },
        2 => LoadFailure::NotLoadable,
        3 => LoadFailure::BadTemplate,
        4 => LoadFailure::NoContext,
        _ => return None,
    })
}

/// Only what a worker reports about a job of its own: the rest of [`EngineFailure`] is the node's
/// own finding and counts as `Compute` here.
fn put_failure(out: &mut Vec<u8>, failure: &EngineFailure) {
    match failure {
        EngineFailure::Refused(SubmitError::Busy) => out.put_u8(1),
        EngineFailure::Refused(SubmitError::BadDialogue { reason }) => {
            out.put_u8(2);
            put_text(out, reason);
        }
        EngineFailure::Refused(SubmitError::ContextExceeded { prompt, context }) => {
            out.put_u8(3);
            out.put_u32(prompt.get());
            out.put_u32(context.get());
        }
        EngineFailure::Refused(
            SubmitError::BadSpec(_)
            | SubmitError::UnknownModel
            | SubmitError::NotReady
            | SubmitError::ShuttingDown,
        )
        | EngineFailure::Crashed
        | EngineFailure::Hung
        | EngineFailure::Compute => out.put_u8(0),
    }
}

fn take_failure(bytes: &mut &[u8]) -> Option<EngineFailure> {
    Some(match bytes.try_get_u8().ok()? {
        0 => EngineFailure::Compute,
        1 => EngineFailure::Refused(SubmitError::Busy),
        2 => EngineFailure::Refused(SubmitError::BadDialogue { reason: take_text(bytes)? }),
        3 => EngineFailure::Refused(SubmitError::ContextExceeded {
            prompt: take_tokens(bytes)?,
            context: take_tokens(bytes)?,
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
