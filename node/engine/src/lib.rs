//! Inference engines behind one port, and what they need to know about model files.
//!
//! Owns: the [`Engine`] port, its engines (`llama`, `echo`), chat templates, the GGUF metadata
//! reader, hashing of model files, and the catalogue of models.
//! Must not: know peers, payments or HTTP; read the environment, the home directory or a clock.
//!
//! A job's way: [`Engine::submit`] refuses at once or returns a [`Generation`]; its first event is
//! [`Generated::Started`] with the size of the prompt, before anything is computed; the caller
//! then pays out tokens with [`GenerationControl::grant`], and the engine never runs ahead of it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod catalogue;
pub mod chat;
pub mod echo;
pub mod gguf;
pub mod hashing;
#[cfg(feature = "llama")]
pub mod llama;
mod port;
pub mod sampling;
mod text;

pub use echo::EchoEngine;
#[cfg(feature = "llama")]
pub use llama::LlamaEngine;
pub use port::{
    Capabilities, Engine, EngineFailure, EngineJob, Generated, Generation, GenerationControl, Load,
    PrefixScope, Steer, SubmitError,
};
