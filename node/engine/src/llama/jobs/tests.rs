//! The table of jobs against well and badly behaved workers.

use cocoon_protocol::identity::ModelHash;
use cocoon_protocol::job::{JobSpec, Prompt, Sampling};
use cocoon_protocol::units::Timestamp;

use super::*;
use crate::port::PrefixScope;

fn job() -> EngineJob {
    EngineJob {
        spec: JobSpec {
            model: ModelHash::from_bytes([1; 32]),
            prompt: Prompt::Text("x".into()),
            sampling: Sampling::with_seed(1),
            stop: vec![],
            max_completion: Tokens::new(8),
        },
        scope: PrefixScope::LOCAL,
        now: Timestamp::EPOCH,
    }
}

struct Fixture {
    jobs: Jobs,
    number: JobNumber,
    events: mpsc::Receiver<Generated>,
}

/// One job, which the worker was told of and has started.
fn started() -> Fixture {
    let mut jobs = Jobs::default();
    let (sender, events) = mpsc::channel(16);
    let number = jobs.add(job(), sender);
    assert_eq!(jobs.commands(), [Command::Job { number, job: job() }]);
    let mut fixture = Fixture { jobs, number, events };
    fixture.take(Report::Started { number, prompt: Tokens::new(5) }).unwrap();
    assert_eq!(fixture.event(), Some(Generated::Started { prompt: Tokens::new(5) }));
    fixture
}

impl Fixture {
    fn take(&mut self, report: Report) -> Result<(), Misbehaved> {
        self.jobs.take(report)
    }

    fn text(&mut self, completion: u32) -> Result<(), Misbehaved> {
        let completion = Tokens::new(completion);
        self.take(Report::Text { number: self.number, text: "t".into(), completion })
    }

    fn event(&mut self) -> Option<Generated> {
        self.events.try_recv().ok()
    }
}

#[test]
fn grants_and_cancellations_wait_for_started_and_are_told_once() {
    let mut jobs = Jobs::default();
    let (sender, _events) = mpsc::channel(16);
    let number = jobs.add(job(), sender);
    jobs.grant(number, Tokens::new(3));
    assert_eq!(jobs.commands().len(), 1, "the job alone");
    assert_eq!(jobs.commands(), []);
    jobs.take(Report::Started { number, prompt: Tokens::new(5) }).unwrap();
    assert_eq!(jobs.commands(), [Command::Grant { number, total: Tokens::new(3) }]);
    jobs.grant(number, Tokens::new(2));
    assert_eq!(jobs.commands(), [], "a smaller grant changes nothing");
    jobs.cancel(number);
    jobs.cancel(number);
    assert_eq!(jobs.commands(), [Command::Cancel { number }]);
    assert_eq!(jobs.commands(), []);
}

#[test]
fn a_worker_that_exceeds_a_grant_has_misbehaved() {
    let mut fixture = started();
    assert_eq!(fixture.text(1), Err(Misbehaved), "nothing was granted");
    let mut fixture = started();
    fixture.jobs.grant(fixture.number, Tokens::new(1));
    assert_eq!(fixture.text(1), Err(Misbehaved), "it was granted, but the worker not told");
    fixture.jobs.commands();
    assert_eq!(fixture.text(1), Ok(()));
    assert_eq!(fixture.text(2), Err(Misbehaved));
}

#[test]
fn a_worker_that_miscounts_has_misbehaved() {
    let granted = || {
        let mut fixture = started();
        fixture.jobs.grant(fixture.number, Tokens::MAX);
        fixture.jobs.commands();
        fixture
    };
    assert_eq!(granted().text(2), Err(Misbehaved), "a token was skipped");
    let mut fixture = granted();
    for completion in 1..=8 {
        fixture.text(completion).unwrap();
    }
    assert_eq!(fixture.text(9), Err(Misbehaved), "beyond the job's own limit");

    let mut fixture = granted();
    fixture.text(1).unwrap();
    let number = fixture.number;
    let usage = Usage { prompt: Tokens::new(5), completion: Tokens::new(2) };
    let finished = Report::Finished { number, reason: FinishReason::Stop, usage };
    assert_eq!(fixture.take(finished), Err(Misbehaved), "more than was reported");
}

#[test]
fn reports_about_no_job_or_out_of_order_are_misbehaviour() {
    let number = JobNumber(77);
    let usage = Usage::default();
    for report in [
        Report::Started { number, prompt: Tokens::ZERO },
        Report::Text { number, text: String::new(), completion: Tokens::ZERO },
        Report::Finished { number, reason: FinishReason::Stop, usage },
        Report::Failed { number, failure: EngineFailure::Compute },
        Report::Pong { nonce: 1 },
    ] {
        assert_eq!(started().take(report), Err(Misbehaved));
    }
    let mut fixture = started();
    let again = Report::Started { number: fixture.number, prompt: Tokens::new(1) };
    assert_eq!(fixture.take(again), Err(Misbehaved));
}

#[test]
fn the_end_frees_the_place_before_it_is_told() {
    let mut fixture = started();
    let number = fixture.number;
    let usage = Usage { prompt: Tokens::new(5), completion: Tokens::ZERO };
    let reason = FinishReason::Cancelled;
    fixture.take(Report::Finished { number, reason, usage }).unwrap();
    assert_eq!(fixture.jobs.len(), 0);
    assert_eq!(fixture.event(), Some(Generated::Finished { reason, usage }));
    assert_eq!(fixture.events.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
}

#[test]
fn the_end_of_a_worker_is_the_end_of_every_job() {
    let mut fixture = started();
    fixture.jobs.fail(&EngineFailure::Hung);
    assert_eq!(fixture.event(), Some(Generated::Failed(EngineFailure::Hung)));
    assert_eq!(fixture.jobs.len(), 0);

    let mut fixture = started();
    fixture.jobs.drain();
    let usage = Usage { prompt: Tokens::new(5), completion: Tokens::ZERO };
    let reason = FinishReason::Draining;
    assert_eq!(fixture.event(), Some(Generated::Finished { reason, usage }));
}

#[test]
fn a_job_whose_reader_is_gone_is_cancelled_once() {
    let Fixture { mut jobs, number, events } = started();
    assert!(!jobs.cancel_abandoned());
    drop(events);
    assert!(jobs.cancel_abandoned());
    assert!(!jobs.cancel_abandoned());
    assert_eq!(jobs.commands(), [Command::Cancel { number }]);
}
