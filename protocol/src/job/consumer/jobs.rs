//! A consumer's jobs, found by what they wait for and by when they are due.
//!
//! Owns: that every index agrees with the stages. Must not: decide what a job does next.

use crate::deadlines::{Deadlines, Entry};
use crate::flat::{FlatMap, FlatSet, with_first};
use crate::identity::{JobId, ModelHash, NodeId};
use crate::places;
use crate::selection::Patience;
use crate::units::Timestamp;

use super::{Job, Stage};

/// All jobs that are not over.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    all: FlatMap<JobId, Box<(Job, Entry)>>,
    /// Jobs without a provider: an offer of their model moves them on.
    looking: FlatSet<(ModelHash, JobId)>,
    /// Jobs with a provider: what it says, and what the ledger says about it, moves them on.
    chosen: FlatSet<(NodeId, JobId)>,
    deadlines: Deadlines<JobId>,
}

impl Jobs {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&JobId, &Job)> {
        self.all.iter().map(|(job, found)| (job, &found.0))
    }

    /// Names where the jobs' list is.
    pub(super) fn name_lists(&self, name: &mut impl FnMut(*const u8, usize)) {
        places::name(&self.all, name);
    }

    /// Names the list, or what it points to.
    pub(super) fn places(&self, lists: bool, name: &mut impl FnMut(*const u8, usize)) {
        if lists {
            places::name_list(self.all.entries(), name);
        } else {
            for found in self.all.values().take(places::ENTRIES) {
                places::name(&found.0.stage, name);
            }
        }
    }

    pub(super) fn get(&self, job: JobId) -> Option<&Job> {
        self.all.get(&job).map(|found| &found.0)
    }

    /// For changes within a stage; [`Self::enter`] changes the stage. Deadlines may only move back.
    pub(super) fn get_mut(&mut self, job: JobId) -> Option<&mut Job> {
        self.all.get_mut(&job).map(|found| &mut found.0)
    }

    /// Adds a job, in the place of one with the same id.
    pub(super) fn insert(&mut self, job: JobId, new: Job, patience: &Patience) {
        self.remove(job);
        self.all.insert(job, Box::new((new, Entry::default())));
        self.index(job, patience);
    }

    pub(super) fn remove(&mut self, job: JobId) -> Option<Job> {
        self.unindex(job);
        self.all.remove(&job).map(|found| found.0)
    }

    /// The job's next stage.
    pub(super) fn enter(&mut self, job: JobId, stage: Stage, patience: &Patience) {
        self.unindex(job);
        if let Some(found) = self.get_mut(job) {
            found.stage = stage;
        }
        self.index(job, patience);
    }

    /// The job's next stage, made of the one that it is in.
    pub(super) fn change(
        &mut self,
        job: JobId,
        patience: &Patience,
        change: impl FnOnce(Stage) -> Stage,
    ) {
        self.unindex(job);
        if let Some(found) = self.get_mut(job) {
            let until = found.submitted;
            let stage = std::mem::replace(&mut found.stage, Stage::Looking { until });
            found.stage = change(stage);
        }
        self.index(job, patience);
    }

    /// The job's deadline came nearer.
    pub(super) fn reschedule(&mut self, job: JobId, patience: &Patience) {
        if let Some(found) = self.all.get_mut(&job) {
            let (found, entry) = &mut **found;
            self.deadlines.set(job, entry, Some(found.deadline(patience)));
        }
    }

    fn index(&mut self, job: JobId, patience: &Patience) {
        let Some(found) = self.all.get_mut(&job) else {
            return;
        };
        let (found, entry) = &mut **found;
        match found.candidate() {
            Some(candidate) => self.chosen.insert((candidate.provider, job)),
            None => self.looking.insert((found.demand.model, job)),
        };
        self.deadlines.set(job, entry, Some(found.deadline(patience)));
    }

    fn unindex(&mut self, job: JobId) {
        let Some(found) = self.all.get_mut(&job) else {
            return;
        };
        let (found, entry) = &mut **found;
        match found.candidate() {
            Some(candidate) => self.chosen.remove(&(candidate.provider, job)),
            None => self.looking.remove(&(found.demand.model, job)),
        };
        self.deadlines.clear(job, entry);
    }

    /// Every job with its provider, in the order of providers.
    pub(super) fn chosen(&self) -> &[(NodeId, JobId)] {
        self.chosen.as_slice()
    }

    /// Jobs with this provider, whatever their stage.
    pub(super) fn with(&self, provider: NodeId) -> Vec<JobId> {
        with_first(self.chosen(), &provider).iter().map(|(_, job)| *job).collect()
    }

    /// Jobs that wait for the first offer of this model.
    pub(super) fn looking_for(&self, model: ModelHash) -> Vec<JobId> {
        with_first(self.looking.as_slice(), &model).iter().map(|(_, job)| *job).collect()
    }

    /// Jobs whose session or channel is not ready, with this provider or with any.
    pub(super) fn preparing(&self, provider: Option<NodeId>) -> Vec<JobId> {
        let waits = |job: &JobId| {
            self.get(*job).is_some_and(|found| matches!(found.stage, Stage::Preparing { .. }))
        };
        let chosen = self.chosen();
        let theirs = provider.map_or(chosen, |provider| with_first(chosen, &provider));
        theirs.iter().map(|(_, job)| *job).filter(waits).collect()
    }

    /// Jobs that are late at `now`. Each is expected to enter another stage or to be removed.
    pub(super) fn late(&mut self, now: Timestamp, patience: &Patience) -> Vec<JobId> {
        let mut late = self.deadlines.take_until(now);
        late.retain(|job| {
            let Some(found) = self.all.get_mut(job) else {
                return false;
            };
            let (found, entry) = &mut **found;
            self.deadlines.came_up(*job, entry, Some(found.deadline(patience)), now)
        });
        late
    }

    /// No job is late before this.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.next()
    }
}
