//! The run over time: intervals for the tables, and at most 512 of them for plots.
//!
//! Owns: what is counted since the last sample; thinning for plots by joining neighbours.
//! Must not: grow with virtual time.

use std::collections::BTreeMap;

use simnet_host::Sample;

use super::jobs::Ended;
use crate::histogram::Histogram;
use crate::results::{Point, Timeline};
use crate::table::Cell;

/// Points that a plot gets at most. Half as many at least, once there are enough samples.
const POINTS: usize = 512;
/// Points of a run in which hardly a job ends.
const POINTS_AT_LEAST: usize = 20;
/// Jobs that are to end in an interval of a plot.
const JOBS_A_POINT: u64 = 20;

/// What is counted in an interval.
#[derive(Clone, Debug, Default)]
pub(super) struct Interval {
    pub(super) at: u64,
    hosts: u32,
    connections: u64,
    pub(super) submitted: u64,
    finished: u64,
    failed: u64,
    running: u64,
    completion_tokens: u64,
    pub(super) crashed: u64,
    pub(super) first_token: Histogram,
    price: Option<u64>,
    traffic: BTreeMap<&'static str, u64>,
}

impl Interval {
    pub(super) fn ended(&mut self, ended: &Ended) {
        if ended.failure.is_some() {
            self.failed += 1;
        } else {
            self.finished += 1;
            self.completion_tokens += u64::from(ended.completion);
        }
    }

    fn success(&self) -> Option<f64> {
        let ended = self.finished + self.failed;
        (ended > 0).then(|| self.finished as f64 / ended as f64)
    }

    fn sent(&self) -> u64 {
        self.traffic.values().sum()
    }

    /// Its row in the table of samples.
    pub(super) fn row(&self) -> [Cell<'static>; 14] {
        [
            self.at.into(),
            self.hosts.into(),
            self.connections.into(),
            self.submitted.into(),
            self.finished.into(),
            self.failed.into(),
            self.running.into(),
            self.success().into(),
            self.completion_tokens.into(),
            self.first_token.quantile(500).into(),
            self.first_token.quantile(990).into(),
            self.price.into(),
            self.sent().into(),
            self.crashed.into(),
        ]
    }

    /// Takes in the interval that follows.
    fn join(&mut self, next: Self) {
        self.at = next.at;
        (self.hosts, self.connections, self.running) = (next.hosts, next.connections, next.running);
        self.price = next.price;
        self.submitted += next.submitted;
        self.finished += next.finished;
        self.failed += next.failed;
        self.completion_tokens += next.completion_tokens;
        self.crashed += next.crashed;
        self.first_token.merge(&next.first_token);
        for (protocol, bytes) in next.traffic {
            *self.traffic.entry(protocol).or_default() += bytes;
        }
    }

    fn point(&self) -> Point {
        Point {
            at_us: self.at,
            hosts: self.hosts,
            connections: self.connections,
            submitted: self.submitted,
            finished: self.finished,
            failed: self.failed,
            running: self.running,
            completion_tokens: self.completion_tokens,
            crashed: self.crashed,
            first_token_p50_us: self.first_token.quantile(500),
            first_token_p99_us: self.first_token.quantile(990),
            price_p50_nanoton: self.price,
            bytes: self.traffic.iter().map(|it| ((*it.0).to_owned(), *it.1)).collect(),
        }
    }
}

/// The run so far.
#[derive(Debug, Default)]
pub(super) struct Series {
    /// The interval that is under way.
    pub(super) now: Interval,
    totals: BTreeMap<&'static str, u64>,
    last: Interval,
    points: Vec<Interval>,
    /// Samples that make a point; doubled whenever there are too many points.
    per_point: u64,
    in_last_point: u64,
}

impl Series {
    /// Ends the interval with a sample of the network.
    pub(super) fn close(
        &mut self,
        at: u64,
        sample: &Sample,
        running: u64,
        price: Option<u64>,
    ) -> &Interval {
        let mut interval = std::mem::take(&mut self.now);
        interval.at = at;
        (interval.hosts, interval.connections) = (sample.hosts, sample.connections);
        (interval.running, interval.price) = (running, price);
        for (protocol, total) in &sample.traffic {
            let before = self.totals.insert(protocol, *total).unwrap_or(0);
            let step = total.saturating_sub(before);
            if step > 0 {
                interval.traffic.insert(protocol, step);
            }
        }
        self.last = interval.clone();
        self.add(interval);
        &self.last
    }

    /// Protocol, bytes in the last interval, bytes since the start.
    pub(super) fn traffic_of_last(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let total = |protocol| self.totals.get(protocol).copied().unwrap_or(0);
        self.last.traffic.iter().map(move |(protocol, bytes)| (*protocol, *bytes, total(protocol)))
    }

    /// Bytes since the start, by protocol.
    pub(super) const fn totals(&self) -> &BTreeMap<&'static str, u64> {
        &self.totals
    }

    fn add(&mut self, interval: Interval) {
        self.per_point = self.per_point.max(1);
        match self.points.last_mut() {
            Some(last) if self.in_last_point < self.per_point => last.join(interval),
            _ => {
                self.points.push(interval);
                self.in_last_point = 0;
            }
        }
        self.in_last_point += 1;
        if self.points.len() > POINTS {
            let mut joined: Vec<Interval> = Vec::with_capacity(POINTS);
            for (index, interval) in std::mem::take(&mut self.points).into_iter().enumerate() {
                match joined.last_mut() {
                    Some(last) if index % 2 == 1 => last.join(interval),
                    _ => joined.push(interval),
                }
            }
            self.points = joined;
            // The last point may be half full now: 513 points are an odd number.
            self.per_point *= 2;
        }
    }

    /// The run for plots: so many points that about twenty jobs end in each. A second in which one job
    /// ended has a success of nothing or of everything, and shows neither.
    pub(super) fn timeline(&self) -> Timeline {
        let ended: u64 = self.points.iter().map(|it| it.finished + it.failed).sum();
        let wanted = usize::try_from(ended / JOBS_A_POINT).unwrap_or(POINTS);
        let wanted = wanted.clamp(POINTS_AT_LEAST, POINTS);
        let together = self.points.len().div_ceil(wanted).max(1);
        let joined = self.points.chunks(together).filter_map(|chunk| {
            let (first, others) = chunk.split_first()?;
            let mut all = first.clone();
            others.iter().cloned().for_each(|it| all.join(it));
            Some(all.point())
        });
        Timeline { points: joined.collect() }
    }
}
