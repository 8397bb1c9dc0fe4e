//! The batcher against a model that checks how it is used.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names only the reports that it expects"
)]

use std::collections::BTreeMap;

use cocoon_protocol::job::Sampling;
use proptest::prelude::*;

use super::*;

const VOCABULARY: usize = 10;
const END: Token = 9;

/// A model whose next token is the last one plus one, modulo 9; it never ends by itself. It keeps
/// what was computed for each sequence, and fails the test when it is used against the rules.
#[derive(Debug, Default)]
struct Counting {
    cells: usize,
    sequences: BTreeMap<usize, Vec<Token>>,
    last: Vec<Entry>,
    logits: Vec<f32>,
    computed: usize,
    steps: usize,
    fail_next: bool,
    only_whole: bool,
    end_after: Option<Token>,
    /// How long a step takes.
    takes: Duration,
}

impl Compute for Counting {
    fn step(&mut self, entries: &[Entry]) -> Result<Duration, StepFailed> {
        assert!(!entries.is_empty() && entries.len() <= STEP_TOKENS);
        if std::mem::take(&mut self.fail_next) {
            return Err(StepFailed);
        }
        for entry in entries {
            let sequence = self.sequences.entry(entry.sequence).or_default();
            assert_eq!(entry.position, sequence.len(), "positions follow one another");
            sequence.push(entry.token);
        }
        let used: usize = self.sequences.values().map(Vec::len).sum();
        assert!(used <= self.cells, "{used} of {} cells", self.cells);
        self.computed += entries.len();
        self.steps += 1;
        self.last = entries.to_vec();
        Ok(self.takes)
    }

    fn logits(&self, index: usize) -> &[f32] {
        let entry = self.last[index];
        assert!(entry.wants_logits);
        let next = match self.end_after {
            Some(token) if token == entry.token => END,
            _ => (entry.token + 1) % END,
        };
        // One row for each token: a table of unit vectors.
        let start = usize::try_from(next).unwrap() * VOCABULARY;
        &self.logits[start..start + VOCABULARY]
    }

    fn forget(&mut self, sequence: usize, position: usize) -> bool {
        let computed = self.sequences.entry(sequence).or_default();
        let whole = self.only_whole && position > 0 && position < computed.len();
        computed.truncate(if whole { 0 } else { position });
        !whole
    }

    fn piece(&self, token: Token) -> Vec<u8> {
        vec![b'0' + u8::try_from(token).unwrap()]
    }

    fn is_end(&self, token: Token) -> bool {
        token == END
    }
}

fn model(cells: usize) -> Counting {
    let mut logits = vec![0.0; VOCABULARY * VOCABULARY];
    for token in 0..VOCABULARY {
        logits[token * VOCABULARY + token] = 100.0;
    }
    Counting { cells, logits, ..Counting::default() }
}

fn batcher(slots: u32, cells: usize) -> (Batcher, Counting) {
    (Batcher::new(slots, tokens(cells), tokens(cells)), model(cells))
}

fn prepared(number: u64, prompt: &[Token], max_completion: u32) -> Prepared {
    Prepared {
        number: JobNumber(number),
        prompt: prompt.to_vec(),
        scope: PrefixScope::LOCAL,
        max_completion: Tokens::new(max_completion),
        sampler: Sampler::new(Sampling { temperature: 0.0, ..Sampling::with_seed(1) }),
        text: CompletionText::new(vec![]),
    }
}

fn steps(batcher: &mut Batcher, model: &mut Counting) -> Vec<Report> {
    let mut reports = Vec::new();
    while batcher.has_work() {
        batcher.step(model, &mut reports);
    }
    reports
}

fn text_of(reports: &[Report], of: u64) -> String {
    let text = reports.iter().filter_map(|report| match report {
        Report::Text { number, text, .. } if number.0 == of => Some(text.as_str()),
        _ => None,
    });
    text.collect()
}

fn end_of(reports: &[Report], of: u64) -> Option<(FinishReason, Usage)> {
    reports.iter().find_map(|report| match report {
        Report::Finished { number, reason, usage } if number.0 == of => Some((*reason, *usage)),
        _ => None,
    })
}

#[test]
fn nothing_is_computed_without_a_grant_and_no_token_beyond_it() {
    let (mut batcher, mut model) = batcher(2, 100);
    batcher.admit(prepared(1, &[1, 2, 3], 6), &mut model).unwrap();
    assert!(!batcher.has_work());
    batcher.grant(JobNumber(1), Tokens::ZERO);
    assert!(!batcher.has_work());
    batcher.grant(JobNumber(1), Tokens::new(2));
    let reports = steps(&mut batcher, &mut model);
    assert_eq!(text_of(&reports, 1), "45");
    // The second token was generated but not computed: that is the next step's.
    assert_eq!(model.computed, 4);
    batcher.grant(JobNumber(1), Tokens::new(1));
    assert!(!batcher.has_work());
    batcher.grant(JobNumber(1), Tokens::MAX);
    let reports = steps(&mut batcher, &mut model);
    assert_eq!(text_of(&reports, 1), "6780");
    let usage = Usage { prompt: Tokens::new(3), completion: Tokens::new(6) };
    assert_eq!(end_of(&reports, 1), Some((FinishReason::Length, usage)));
}

#[test]
fn the_models_own_end_needs_a_grant_and_is_not_counted() {
    let (mut batcher, mut model) = batcher(1, 100);
    model.end_after = Some(5);
    batcher.admit(prepared(1, &[3], 50), &mut model).unwrap();
    batcher.grant(JobNumber(1), Tokens::new(2));
    let reports = steps(&mut batcher, &mut model);
    assert_eq!((text_of(&reports, 1).as_str(), end_of(&reports, 1)), ("45", None));
    batcher.grant(JobNumber(1), Tokens::new(3));
    let reports = steps(&mut batcher, &mut model);
    let usage = Usage { prompt: Tokens::new(1), completion: Tokens::new(2) };
    assert_eq!(
        reports,
        [Report::Finished { number: JobNumber(1), reason: FinishReason::Stop, usage }]
    );
}

#[test]
fn a_long_prompt_is_read_in_parts_beside_the_jobs_that_decode() {
    let (mut batcher, mut model) = batcher(2, 4_000);
    batcher.admit(prepared(1, &[1], 8), &mut model).unwrap();
    batcher.admit(prepared(2, &vec![1; 1_500], 1), &mut model).unwrap();
    batcher.grant(JobNumber(1), Tokens::MAX);
    batcher.grant(JobNumber(2), Tokens::MAX);
    let mut reports = Vec::new();
    // Once that is known to be fast.
    while batcher.pace.tokens() < STEP_TOKENS {
        batcher.pace.took(batcher.pace.tokens(), Duration::ZERO);
    }
    batcher.step(&mut model, &mut reports);
    assert_eq!(model.last.len(), STEP_TOKENS);
    assert_eq!(text_of(&reports, 1), "2");
    batcher.step(&mut model, &mut reports);
    assert_eq!((model.last[0].sequence, model.last.len()), (0, STEP_TOKENS));
    assert_eq!((text_of(&reports, 1).as_str(), end_of(&reports, 2)), ("23", None));
    batcher.step(&mut model, &mut reports);
    assert!(end_of(&reports, 2).is_some());
}

#[test]
fn on_a_slow_machine_a_prompt_is_read_in_short_steps_and_what_was_read_outlives_its_job() {
    let (mut batcher, mut model) = batcher(2, 4_000);
    model.takes = Duration::from_secs(20);
    let prompt: Vec<Token> = (0..40).map(|token| token % 9).collect();
    batcher.admit(prepared(1, &prompt, 1), &mut model).unwrap();
    batcher.admit(prepared(2, &[1], 8), &mut model).unwrap();
    batcher.grant(JobNumber(1), Tokens::MAX);
    let mut reports = Vec::new();
    for _ in 0..3 {
        batcher.step(&mut model, &mut reports);
        assert!(model.last.len() <= 8, "{} tokens", model.last.len());
    }
    // It does not wait for the end of the prompt to leave, and leaves what it has read.
    assert!(batcher.cancel(JobNumber(1)).is_some());
    let read = model.computed;
    batcher.admit(prepared(3, &prompt, 1), &mut model).unwrap();
    batcher.grant(JobNumber(3), Tokens::MAX);
    reports.extend(steps(&mut batcher, &mut model));
    assert_eq!((end_of(&reports, 3).is_some(), model.computed), (true, prompt.len()));
    assert_eq!(read, 24);
}

#[test]
fn a_shared_beginning_is_computed_once_within_a_scope() {
    let (mut batcher, mut model) = batcher(3, 100);
    let prompt = [1, 2, 3, 4, 5, 6];
    let mut cost = |batcher: &mut Batcher, job: Prepared| {
        let (number, before) = (job.number, model.computed);
        batcher.admit(job, &mut model).unwrap();
        batcher.grant(number, Tokens::MAX);
        steps(batcher, &mut model);
        model.computed - before
    };
    assert_eq!(cost(&mut batcher, prepared(1, &prompt, 1)), 6);
    assert_eq!(cost(&mut batcher, prepared(2, &prompt, 1)), 1, "the last token, for its logits");
    assert_eq!(cost(&mut batcher, prepared(3, &[1, 2, 3, 0], 1)), 1);
    let stranger = PrefixScope::from_bytes([7; 32]);
    let foreign = Prepared { scope: stranger, ..prepared(4, &prompt, 1) };
    assert_eq!(cost(&mut batcher, foreign), 6);
}

#[test]
fn a_model_that_cannot_go_back_computes_anew() {
    let (mut batcher, mut model) = batcher(1, 100);
    model.only_whole = true;
    for number in 1..=2 {
        batcher.admit(prepared(number, &[1, 2, 3], 2), &mut model).unwrap();
        batcher.grant(JobNumber(number), Tokens::MAX);
        let reports = steps(&mut batcher, &mut model);
        assert_eq!(text_of(&reports, number), "45");
    }
    assert_eq!(model.computed, 8);
}

#[test]
fn admission_promises_no_cell_twice_and_forgets_idle_ones_first() {
    let (mut batcher, mut model) = batcher(3, 20);
    batcher.admit(prepared(1, &[1; 8], 4), &mut model).unwrap();
    batcher.grant(JobNumber(1), Tokens::MAX);
    steps(&mut batcher, &mut model);
    // Idle cells of the first job do not stand in the way of the second.
    batcher.admit(prepared(2, &[2; 10], 6), &mut model).unwrap();
    let error = batcher.admit(prepared(3, &[3; 4], 1), &mut model).unwrap_err();
    assert_eq!(error, SubmitError::Busy);
    batcher.admit(prepared(4, &[3; 3], 1), &mut model).unwrap();
    let error = batcher.admit(prepared(5, &[1; 20], 1), &mut model).unwrap_err();
    let (prompt, context) = (Tokens::new(20), Tokens::new(20));
    assert_eq!(error, SubmitError::ContextExceeded { prompt, context });
}

#[test]
fn one_job_has_its_context_and_not_all_cells() {
    let (cells, context) = (tokens(40), tokens(10));
    let (mut batcher, mut model) = (Batcher::new(2, cells, context), model(40));
    let error = batcher.admit(prepared(1, &[1; 10], 1), &mut model).unwrap_err();
    assert_eq!(error, SubmitError::ContextExceeded { prompt: context, context });
    batcher.admit(prepared(2, &[1; 8], 100), &mut model).unwrap();
    batcher.grant(JobNumber(2), Tokens::MAX);
    let usage = Usage { prompt: Tokens::new(8), completion: Tokens::new(2) };
    let reports = steps(&mut batcher, &mut model);
    assert_eq!(end_of(&reports, 2), Some((FinishReason::Length, usage)));
}

#[test]
fn a_failed_step_ends_the_jobs_in_it_and_no_other() {
    let (mut batcher, mut model) = batcher(2, 100);
    batcher.admit(prepared(1, &[1], 5), &mut model).unwrap();
    batcher.admit(prepared(2, &[1], 5), &mut model).unwrap();
    batcher.grant(JobNumber(1), Tokens::new(5));
    model.fail_next = true;
    let reports = steps(&mut batcher, &mut model);
    let failure = EngineFailure::Compute;
    assert_eq!(reports, [Report::Failed { number: JobNumber(1), failure }]);
    batcher.grant(JobNumber(2), Tokens::new(5));
    assert_eq!(text_of(&steps(&mut batcher, &mut model), 2), "23456");
}

#[test]
fn a_cancelled_job_leaves_its_place() {
    let (mut batcher, mut model) = batcher(1, 100);
    batcher.admit(prepared(1, &[1], 50), &mut model).unwrap();
    batcher.grant(JobNumber(1), Tokens::new(3));
    steps(&mut batcher, &mut model);
    let usage = Usage { prompt: Tokens::new(1), completion: Tokens::new(3) };
    let reason = FinishReason::Cancelled;
    let number = JobNumber(1);
    assert_eq!(batcher.cancel(number), Some(Report::Finished { number, reason, usage }));
    assert_eq!(batcher.cancel(number), None);
    batcher.admit(prepared(2, &[1], 50), &mut model).unwrap();
}

#[derive(Clone, Debug)]
enum Action {
    Admit { prompt: Vec<Token>, max_completion: u32, stranger: bool },
    Grant { job: prop::sample::Index, total: u32 },
    Cancel { job: prop::sample::Index },
    Fail,
    Step,
}

fn action() -> impl Strategy<Value = Action> {
    let prompt = prop::collection::vec(0_u32..3, 1..30);
    prop_oneof![
        3 => (prompt, 1_u32..20, any::<bool>()).prop_map(|(prompt, max_completion, stranger)| {
            Action::Admit { prompt, max_completion, stranger }
        }),
        4 => (any::<prop::sample::Index>(), 0_u32..25)
            .prop_map(|(job, total)| Action::Grant { job, total }),
        1 => any::<prop::sample::Index>().prop_map(|job| Action::Cancel { job }),
        1 => Just(Action::Fail),
        8 => Just(Action::Step),
    ]
}

/// What a job was asked, granted and has got, as the test counts it.
#[derive(Debug)]
struct Expected {
    first: Token,
    limit: u32,
    granted: u32,
    got: String,
    ended: bool,
}

fn account(jobs: &mut BTreeMap<u64, Expected>, reports: Vec<Report>) {
    for report in reports {
        match report {
            Report::Text { number, text, completion } => {
                let job = jobs.get_mut(&number.0).unwrap();
                job.got.push_str(&text);
                assert_eq!(job.got.len(), count(completion));
                assert!(completion.get() <= job.granted.min(job.limit), "{job:?}");
            }
            Report::Finished { number, reason, usage } => {
                let job = jobs.get_mut(&number.0).unwrap();
                assert_eq!(count(usage.completion), job.got.len());
                assert_eq!(reason == FinishReason::Length, usage.completion.get() == job.limit);
                job.ended = true;
            }
            Report::Failed { number, .. } => jobs.get_mut(&number.0).unwrap().ended = true,
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    /// Whatever is admitted, granted, cancelled and fails in whatever order: no token beyond a
    /// grant, no cell beyond what there is (the model checks), every answer right, and in the end
    /// every job that is granted all comes to its end.
    #[test]
    fn grants_cells_and_answers_hold_for_any_history(
        actions in prop::collection::vec(action(), 1..120), slots in 1_u32..4,
    ) {
        let cells = 64;
        let (mut batcher, mut model) = batcher(slots, cells);
        let mut jobs: BTreeMap<u64, Expected> = BTreeMap::new();
        for action in actions {
            let mut reports = Vec::new();
            match action {
                Action::Admit { prompt, max_completion, stranger } => {
                    let number = u64::try_from(jobs.len()).unwrap();
                    let limit = max_completion.min(u32::try_from(cells - prompt.len()).unwrap());
                    let mut job = prepared(number, &prompt, max_completion);
                    if stranger { job.scope = PrefixScope::from_bytes([1; 32]); }
                    let running = jobs.values().filter(|job| !job.ended).count();
                    let admitted = batcher.admit(job, &mut model);
                    prop_assert!(admitted.is_err() || running < usize::try_from(slots).unwrap());
                    if admitted.is_ok() {
                        let first = *prompt.last().unwrap();
                        jobs.insert(number, Expected { first, limit, granted: 0, got: String::new(), ended: false });
                    }
                }
                Action::Grant { job, total } if !jobs.is_empty() => {
                    let number = u64::try_from(job.index(jobs.len())).unwrap();
                    if let Some(job) = jobs.get_mut(&number) {
                        job.granted = job.granted.max(total);
                        batcher.grant(JobNumber(number), Tokens::new(total));
                    }
                }
                Action::Cancel { job } if !jobs.is_empty() => {
                    let number = u64::try_from(job.index(jobs.len())).unwrap();
                    let report = batcher.cancel(JobNumber(number));
                    prop_assert_eq!(report.is_some(), !jobs[&number].ended);
                    // A job that is cancelled has not come to its limit: that would have ended it.
                    reports.extend(report);
                }
                Action::Fail if batcher.has_work() => {
                    model.fail_next = true;
                    batcher.step(&mut model, &mut reports);
                }
                Action::Step => batcher.step(&mut model, &mut reports),
                _ => {}
            }
            account(&mut jobs, reports);
        }
        for (&number, job) in &mut jobs {
            job.granted = u32::MAX;
            batcher.grant(JobNumber(number), Tokens::MAX);
        }
        let reports = steps(&mut batcher, &mut model);
        account(&mut jobs, reports);
        for job in jobs.values() {
            prop_assert!(job.ended);
            let expected: String =
                (1_u32..).map(|n| char::from_digit((job.first + n) % END, 10).unwrap()).take(job.got.len()).collect();
            prop_assert_eq!(&job.got, &expected);
        }
    }
}
