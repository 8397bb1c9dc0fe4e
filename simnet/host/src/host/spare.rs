//! Room that one host is done with and the next one takes: hosts are handled one after another.
//!
//! Owns: one batch, inbox and list of each kind that hosts fill and empty at nearly every stimulus.
//! Must not: hold anything but room, or more of it than the next host may need.
//!
//! Some of these take more than a kilobyte as soon as they have an entry. To allocate and free
//! them for each of a run's events takes longer than what most events do.

use std::cell::Cell;

use super::inbox::Waitlist;
use super::process::Batch;
use crate::engine::Generated;

/// Entries for which room is kept at most.
const KEPT: usize = 64;

thread_local! {
    static BATCH: Cell<Option<Box<Batch>>> = const { Cell::new(None) };
    static INBOX: Cell<Option<Box<Waitlist>>> = const { Cell::new(None) };
    static GENERATED: Cell<Vec<Generated>> = const { Cell::new(Vec::new()) };
}

/// An empty batch.
pub(super) fn batch() -> Box<Batch> {
    BATCH.with(Cell::take).unwrap_or_default()
}

/// What is left of one.
pub(super) fn done(mut batch: Box<Batch>) {
    let Batch { output, paid } = &mut *batch;
    if output.persist.capacity() <= KEPT && output.effects.capacity() <= KEPT {
        output.persist.clear();
        output.effects.clear();
        output.wake_at = None;
        paid.clear();
        BATCH.with(|kept| kept.set(Some(batch)));
    }
}

/// An empty list for what an engine has to say.
pub(super) fn generated() -> Vec<Generated> {
    GENERATED.with(Cell::take)
}

/// What is left of it.
pub(super) fn said(mut list: Vec<Generated>) {
    if list.capacity() > 0 && list.capacity() <= KEPT {
        list.clear();
        GENERATED.with(|kept| kept.set(list));
    }
}

/// An empty inbox.
pub(super) fn inbox() -> Box<Waitlist> {
    INBOX.with(Cell::take).unwrap_or_default()
}

/// What is left of one.
pub(super) fn emptied(inbox: Box<Waitlist>) {
    if inbox.0.is_empty() && inbox.0.capacity() <= KEPT {
        INBOX.with(|kept| kept.set(Some(inbox)));
    }
}
