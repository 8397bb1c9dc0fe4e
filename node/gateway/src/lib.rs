//! The OpenAI-compatible HTTP interface of a consumer.
//!
//! Owns: HTTP's spelling of requests, answers and errors; who may call; the connections' bounds.
//! Must not: choose providers, hold money or keys, or remember a prompt or a completion. All of
//! that is behind the [`Jobs`] port, which the node implements.
//! Invariant: a field that is not understood is refused by name, never dropped in silence.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod access;
mod answer;
mod body;
mod connection;
mod error;
mod fields;
mod port;
mod request;
mod router;
mod server;

pub use access::{ApiKey, BindError, check_bind};
pub use port::{
    Accepted, Health, JobEvent, JobRequest, JobStream, Jobs, ModelListing, ParseModelError,
    model_hash_in,
};
pub use server::{Options, ServeError, serve};
