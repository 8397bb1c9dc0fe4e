//! Every job ends, and ends once: with a receipt, a refusal or a counted failure.
//!
//! Owns: the jobs that are not over, by age. Must not: remember those that are: one that ends again
//! is unknown by then, which is the same fault.
//!
//! That every job ends is judged exactly: after every event each host compares the jobs that its
//! users wait for with those that its node works on and means to look at again, so that a job which
//! would never end is found at the event that loses it. A job that is looked at again and again and
//! never ends has only its age against it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cocoon_protocol::identity::JobId;
use simnet_scenario::Moment;

use super::Verdict;

pub(super) const NAME: &str = "jobs-end-once";

/// A host's jobs are not where they must be.
pub(super) fn adrift(waiting: u32, held: u32, attended: bool) -> Verdict {
    Err(if waiting != held {
        format!("users wait for {waiting} jobs, and their node works on {held}")
    } else if attended {
        "jobs are said to be adrift and are not".to_owned()
    } else {
        format!("a node has {held} jobs and means to look at none of them again")
    })
}

#[derive(Debug)]
pub(super) struct Jobs {
    oldest: Duration,
    open: BTreeMap<JobId, Moment>,
    /// In the order of submission; ended ones are dropped when they come up.
    order: VecDeque<(Moment, JobId)>,
    /// The first of them, once it is known to be open, and until when it is not too old: that is asked
    /// at every fact.
    first: Option<(Moment, JobId)>,
}

impl Jobs {
    pub(super) const fn new(oldest: Duration) -> Self {
        Self { oldest, open: BTreeMap::new(), order: VecDeque::new(), first: None }
    }

    pub(super) fn submitted(&mut self, at: Moment, job: JobId) -> Verdict {
        if self.open.insert(job, at).is_some() {
            return Err("a job was submitted twice".to_owned());
        }
        self.order.push_back((at, job));
        Ok(())
    }

    pub(super) fn ended(&mut self, job: JobId) -> Verdict {
        self.first.take_if(|(_, first)| *first == job);
        match self.open.remove(&job) {
            Some(_) => Ok(()),
            None => Err("a job ended that was not open".to_owned()),
        }
    }

    /// Looks whether the oldest job is too old.
    #[inline]
    pub(super) fn age(&mut self, now: Moment) -> Verdict {
        if self.first.is_some_and(|(until, _)| now <= until) {
            return Ok(());
        }
        self.find_first(now)
    }

    fn find_first(&mut self, now: Moment) -> Verdict {
        self.first = None;
        while let Some((at, job)) = self.order.front().copied() {
            let open = self.open.get(&job) == Some(&at);
            if open && now.since(at) <= self.oldest {
                self.first = Some((at.after(self.oldest), job));
                break;
            }
            self.order.pop_front();
            if open {
                return Err(format!("a job is open for {} s", now.since(at).as_secs()));
            }
        }
        Ok(())
    }

    /// At the end of a run nothing is old: what was submitted shortly before may be open.
    pub(super) fn finish(&mut self, now: Moment) -> Verdict {
        self.age(now)
    }
}
