//! What waits for the protocol while the store commits.
//!
//! Owns: its order, and that a host for which nothing waits holds no room for it.
//! Must not: bound itself; what is too much, the driver decides.

use std::collections::VecDeque;

use cocoon_protocol::Input;
use cocoon_protocol::identity::{JobId, NodeId};
use cocoon_protocol::units::Tokens;

use super::spare;
use crate::fabric::SessionId;

/// Inputs in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Inbox(Option<Box<Waitlist>>);

/// The room for them.
#[derive(Debug, Default)]
pub(super) struct Waitlist(pub(super) VecDeque<Waiting>);

/// Something for the protocol. Four times as small as an input: it is moved in and out.
#[derive(Debug)]
pub(super) enum Waiting {
    /// Text went out. Nearly all that ever waits, and that only until the host is done with it.
    Generated { peer: NodeId, job: JobId, completion: Tokens },
    /// Anything else of the host's own.
    Own(Box<Input>),
    /// What came in a session, whose reader waits while the inbox is full.
    Heard(SessionId, Box<Input>),
}

impl Inbox {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.0.len())
    }

    /// Puts an input behind the others.
    pub(super) fn push(&mut self, session: Option<SessionId>, input: Input) {
        self.put(match session {
            None => Waiting::Own(Box::new(input)),
            Some(session) => Waiting::Heard(session, Box::new(input)),
        });
    }

    /// Puts the input that text went out behind the others.
    pub(super) fn push_generated(&mut self, peer: NodeId, job: JobId, completion: Tokens) {
        self.put(Waiting::Generated { peer, job, completion });
    }

    fn put(&mut self, waiting: Waiting) {
        self.0.get_or_insert_with(spare::inbox).0.push_back(waiting);
    }

    /// Takes the first out.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Input> {
        let Waitlist(waiting) = &mut **self.0.as_mut()?;
        let first = waiting.pop_front();
        if waiting.is_empty()
            && let Some(room) = self.0.take()
        {
            spare::emptied(room);
        }
        Some(match first? {
            Waiting::Generated { peer, job, completion } => {
                Input::Generated { peer, job, completion }
            }
            Waiting::Own(input) | Waiting::Heard(_, input) => *input,
        })
    }

    /// How many of a session wait behind the first so many.
    pub(super) fn of_session_behind(&self, session: SessionId, first: usize) -> usize {
        let theirs = |it: &&Waiting| matches!(it, Waiting::Heard(whose, _) if *whose == session);
        self.0.iter().flat_map(|waiting| waiting.0.iter().skip(first)).filter(theirs).count()
    }
}
