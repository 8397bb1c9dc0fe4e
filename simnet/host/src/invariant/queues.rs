//! Every queue that a peer or user can fill is bounded.
//!
//! Owns: the comparison. Must not: know the bounds; who states a depth states them.

use super::Verdict;
use crate::observation::Queue;

pub(super) const NAME: &str = "queues-bounded";

pub(super) fn queued(queue: Queue, depth: u32, bound: u32) -> Verdict {
    if depth <= bound {
        return Ok(());
    }
    Err(format!("{depth} wait in the queue {queue:?}, which holds {bound}"))
}
