//! Room that one host is done with and the next one takes: hosts are handled one after another.
//!
//! Owns: a list of each kind that hosts fill and empty at nearly every stimulus.
//! Must not: hold anything but room, or more of it than the next hosts may need.
//!
//! Each of these lists takes more than a kilobyte as soon as it has an entry. To allocate and free
//! them for each of a run's events takes longer than what most events do.

use std::cell::Cell;
use std::collections::VecDeque;

use super::inbox::Waiting;
use super::process::Batch;
use crate::engine::Generated;

/// Entries for which room is kept at most.
const KEPT: usize = 64;
/// Batches that are kept at most: one is with each commit that is under way.
const BATCHES: usize = 32;

thread_local! {
    static BATCHES_KEPT: Cell<Vec<Box<Batch>>> = const { Cell::new(Vec::new()) };
    static INBOX: Cell<Option<Box<VecDeque<Waiting>>>> = const { Cell::new(None) };
    static GENERATED: Cell<Vec<Generated>> = const { Cell::new(Vec::new()) };
}

/// An empty batch.
pub(super) fn batch() -> Box<Batch> {
    let mut kept = BATCHES_KEPT.take();
    let batch = kept.pop();
    BATCHES_KEPT.set(kept);
    batch.unwrap_or_default()
}

/// What is left of one.
pub(super) fn done(mut batch: Box<Batch>) {
    let Batch { output, paid } = &mut *batch;
    let small = output.persist.capacity() <= KEPT && output.effects.capacity() <= KEPT;
    let mut kept = BATCHES_KEPT.take();
    if small && kept.len() < BATCHES {
        output.persist.clear();
        output.effects.clear();
        output.wake_at = None;
        paid.clear();
        kept.push(batch);
    }
    BATCHES_KEPT.set(kept);
}

/// An empty list for what an engine has to say.
pub(super) fn generated() -> Vec<Generated> {
    GENERATED.take()
}

/// What is left of it.
pub(super) fn said(mut list: Vec<Generated>) {
    if list.capacity() > 0 && list.capacity() <= KEPT {
        list.clear();
        GENERATED.set(list);
    }
}

/// An empty inbox.
pub(super) fn inbox() -> Box<VecDeque<Waiting>> {
    INBOX.take().unwrap_or_default()
}

/// What is left of one.
pub(super) fn emptied(inbox: Box<VecDeque<Waiting>>) {
    if inbox.is_empty() && inbox.capacity() <= KEPT {
        INBOX.set(Some(inbox));
    }
}
