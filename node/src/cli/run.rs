//! No command: runs a node.
//!
//! Owns: the log and the runtime of the process, and that the process ends with its node.

use std::time::Duration;

use tokio::runtime::Runtime;

use super::{Context, Failure, surroundings};
use crate::telemetry;

/// How long blocking calls may still take when the node has ended. What has to be finished it has waited
/// for; a driver that hangs would keep the process for ever.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let config = context.load()?.config;
    let colour = surroundings::colour(&context.layers.environment);
    telemetry::install(&config.log, config.log_format, colour)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("cocoon")
        .build()
        .map_err(Failure::new)?;
    Ok(to_the_end(runtime, crate::run::run(config), PATIENCE)?)
}

/// What `node` comes to; blocking calls that are still out are left behind after `patience`.
pub(super) fn to_the_end<T>(
    runtime: Runtime,
    node: impl Future<Output = T>,
    patience: Duration,
) -> T {
    let outcome = runtime.block_on(node);
    runtime.shutdown_timeout(patience);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_never_returns_does_not_keep_the_process() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (let_go, stuck) = std::sync::mpsc::channel::<()>();
        let node = async {
            let (began, beginning) = tokio::sync::oneshot::channel();
            tokio::task::spawn_blocking(move || {
                let _ = began.send(());
                let _ = stuck.recv();
            });
            beginning.await.is_ok()
        };
        assert!(to_the_end(runtime, node, Duration::from_millis(1)));
        drop(let_go);
    }
}
