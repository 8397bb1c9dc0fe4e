//! llama.cpp as an engine, in a child process of its own.
//!
//! Owns: the process (`supervisor`), what is said over its pipes (`wire`), and what runs in it
//! (`worker`: the batcher, the model). The only place that names `llama_cpp_2`.
//! Must not: let a crash of llama.cpp reach the node. Its assertions abort the process, and what
//! it parses is a stranger's prompt; so it gets a process that may die, and nothing else.
//!
//! ```text
//! node process                                   worker process (`engine-worker`)
//!   submit, grant, cancel -> state -> writer  =====>  main: reads commands, ends at end of file
//!                              ^                        |-> prepare: template, tokenizer
//!   events  <-  reader  <===================================  decode: batcher, llama.cpp
//!   supervisor: spawn, heartbeat, kill, restart
//! ```

mod batcher;
mod compute;
mod jobs;
mod pace;
mod pieces;
mod prepare;
mod supervisor;
mod wire;
mod worker;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use cocoon_protocol::identity::ModelHash;
use cocoon_protocol::units::Tokens;

pub use supervisor::{LlamaEngine, Status};
pub use wire::LoadFailure;
pub use worker::worker_main;

/// How to run a model.
#[derive(Clone, Debug)]
pub struct LlamaSettings {
    /// The GGUF file.
    pub path: PathBuf,
    /// BLAKE3 that the file must have. Checked by the worker each time before it loads the file.
    pub model: ModelHash,
    /// The program that calls [`worker_main`]: usually this same binary.
    pub worker: PathBuf,
    /// Its arguments: the hidden sub-command.
    pub worker_arguments: Vec<OsString>,
    /// Tokens that one job may use at most, prompt and completion together; never more than the
    /// model was trained for.
    pub context: Tokens,
    /// Tokens that all jobs share; at least `context`. Costs memory: for each token, 2 × layers ×
    /// key-value width × 2 bytes. A job is admitted when all that it may come to need is free.
    pub cells: Tokens,
    /// Jobs at a time.
    pub slots: u32,
    /// Threads that compute. More than the cores that are really free make it many times slower.
    pub threads: u32,
    /// Layers to put on a GPU, when built for one; a number above the model's puts all there.
    pub gpu_layers: u32,
    /// Load the weights from a copy in memory that is hashed while it is made (Linux). In a
    /// confidential VM the disk is the host's: it could serve other bytes when llama.cpp reads the
    /// file than when it was hashed, or change pages that were dropped and are read again. Costs the
    /// file's size in memory, which a memory map of the file would come to use as well.
    pub private_weights: bool,
    /// How long the worker may take to hash and load the model.
    pub load_within: Duration,
    /// How long the worker may be silent before it counts as hung and is killed. It hears nothing
    /// during a step, and a slow machine's steps are short, down to eight tokens of a prompt.
    pub silent_for: Duration,
}

impl LlamaSettings {
    /// Eight jobs in a context of 8,192 tokens, on all cores but one, on the GPU if there is one.
    pub fn new(path: PathBuf, model: ModelHash, worker: PathBuf) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            path,
            model,
            worker,
            worker_arguments: Vec::new(),
            context: Tokens::new(8_192),
            cells: Tokens::new(8_192),
            slots: 8,
            threads: u32::try_from(cores.saturating_sub(1).max(1)).unwrap_or(1),
            gpu_layers: 999,
            private_weights: false,
            load_within: Duration::from_secs(600),
            silent_for: Duration::from_secs(120),
        }
    }
}

/// Why an engine could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The worker's program could not be run.
    #[error("the engine's program `{}` cannot be run ({kind})", program.display())]
    Spawn {
        /// Which program.
        program: PathBuf,
        /// What the system said.
        kind: std::io::ErrorKind,
    },
    /// The path of the model cannot be given to llama.cpp.
    #[error("the path of the model is not Unicode")]
    BadPath,
    /// The worker refused to load the model.
    #[error("the model was not loaded")]
    Load(#[source] LoadFailure),
    /// The worker died while it loaded the model.
    #[error("the engine's process died while it loaded the model; see the log at level debug")]
    Died,
    /// The worker did not load the model in time.
    #[error("the model was not loaded in time")]
    TooSlow,
}
