//! No command: runs a node.
//!
//! Owns: the log and the runtime of the process.

use super::{Context, Failure, surroundings};
use crate::telemetry;

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let config = context.load()?.config;
    let colour = surroundings::colour(&context.layers.environment);
    telemetry::install(&config.log, config.log_format, colour)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("cocoon")
        .build()
        .map_err(Failure::new)?;
    Ok(runtime.block_on(crate::run::run(config))?)
}
