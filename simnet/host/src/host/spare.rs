//! Room that one host is done with and the next one takes: hosts are handled one after another.
//!
//! Owns: a list of each kind that hosts fill and empty at nearly every stimulus.
//! Must not: hold anything but room, or more of it than the next host may need.
//!
//! Each of these lists takes more than a kilobyte as soon as it has an entry. To allocate and free
//! them for each of a run's events takes longer than what most events do.

use std::cell::Cell;
use std::collections::VecDeque;
use std::thread::LocalKey;

use cocoon_protocol::Output;
use cocoon_protocol::output::Effect;
use cocoon_protocol::record::Record;

use super::process::Waiting;
use crate::engine::Generated;

/// Entries for which room is kept at most.
const KEPT: usize = 64;

thread_local! {
    static PERSIST: Cell<Vec<Record>> = const { Cell::new(Vec::new()) };
    static EFFECTS: Cell<Vec<Effect>> = const { Cell::new(Vec::new()) };
    static INBOX: Cell<VecDeque<Waiting>> = const { Cell::new(VecDeque::new()) };
    static GENERATED: Cell<Vec<Generated>> = const { Cell::new(Vec::new()) };
}

fn keep<T>(place: &'static LocalKey<Cell<Vec<T>>>, mut list: Vec<T>) {
    if list.capacity() > 0 && list.capacity() <= KEPT {
        list.clear();
        place.set(list);
    }
}

/// An empty output.
pub(super) fn output() -> Output {
    Output { persist: PERSIST.take(), effects: EFFECTS.take(), wake_at: None }
}

/// What is left of one.
pub(super) fn records(list: Vec<Record>) {
    keep(&PERSIST, list);
}

/// What is left of one.
pub(super) fn effects(list: Vec<Effect>) {
    keep(&EFFECTS, list);
}

/// An empty list for what an engine has to say.
pub(super) fn generated() -> Vec<Generated> {
    GENERATED.take()
}

/// What is left of it.
pub(super) fn said(list: Vec<Generated>) {
    keep(&GENERATED, list);
}

/// An empty inbox.
pub(super) fn inbox() -> VecDeque<Waiting> {
    INBOX.take()
}

/// What is left of one.
pub(super) fn emptied(inbox: VecDeque<Waiting>) {
    if inbox.is_empty() && inbox.capacity() <= KEPT {
        INBOX.set(inbox);
    }
}
