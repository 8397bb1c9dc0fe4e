//! The rules of the port, run against every engine.

use super::*;

/// Words enough for any of the rules: the echo answers with as many tokens.
pub(crate) const LONG: &str = "one two three four five six seven eight nine ten eleven twelve thirteen \
    fourteen fifteen sixteen seventeen eighteen nineteen twenty one two three four five six seven \
    eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen";

/// Every rule in turn. `engine` must be idle.
pub(crate) async fn all(engine: &dyn Engine) {
    nothing_is_computed_before_a_grant(engine).await;
    a_grant_is_never_exceeded(engine).await;
    the_limit_of_tokens_ends_a_job(engine).await;
    a_cancelled_job_ends_with_exact_usage(engine).await;
    dropping_either_half_frees_the_place(engine).await;
    a_full_engine_refuses_at_once(engine).await;
    jobs_run_side_by_side(engine).await;
    a_waiting_job_does_not_hold_up_others(engine).await;
    what_does_not_fit_is_refused_with_numbers(engine).await;
    malformed_and_foreign_jobs_are_refused(engine);
    an_answer_goes_on_behind_its_beginning(engine).await;
}

async fn nothing_is_computed_before_a_grant(engine: &dyn Engine) {
    let Generation { mut events, control } = engine.submit(job(engine, LONG, 20)).unwrap();
    let prompt = started(&mut events).await.unwrap();
    control.grant(Tokens::ZERO);
    // A whole other job passes meanwhile, so there was time to do what must not be done.
    run(engine, job(engine, LONG, 10)).await.unwrap();
    assert!(events.try_recv().is_err());
    control.cancel();
    let (text, reason, usage) = rest(&mut events, 0).await;
    assert_eq!((text.as_str(), reason), ("", FinishReason::Cancelled));
    assert_eq!(usage, Usage { prompt, completion: Tokens::ZERO });
}

async fn a_grant_is_never_exceeded(engine: &dyn Engine) {
    let Generation { mut events, control } = engine.submit(job(engine, LONG, 20)).unwrap();
    started(&mut events).await.unwrap();
    let mut seen = 0;
    for granted in [1, 4, 2, 5, 11] {
        control.grant(Tokens::new(granted));
        while seen < granted {
            seen += 1;
            token(&mut events, seen).await;
        }
        run(engine, job(engine, LONG, 5)).await.unwrap();
        assert!(events.try_recv().is_err(), "went beyond a grant of {granted}");
    }
    control.grant(EVERYTHING);
    let (_, reason, usage) = rest(&mut events, seen).await;
    assert_eq!((reason, usage.completion), (FinishReason::Length, Tokens::new(20)));
}

async fn the_limit_of_tokens_ends_a_job(engine: &dyn Engine) {
    for limit in [1, 2, 9] {
        let answer = run(engine, job(engine, LONG, limit)).await.unwrap();
        assert_eq!(answer.reason, FinishReason::Length);
        assert_eq!(answer.completion, Tokens::new(limit));
    }
}

async fn a_cancelled_job_ends_with_exact_usage(engine: &dyn Engine) {
    let Generation { mut events, control } = engine.submit(job(engine, LONG, 30)).unwrap();
    started(&mut events).await.unwrap();
    control.grant(Tokens::new(4));
    for seen in 1..=4 {
        token(&mut events, seen).await;
    }
    control.cancel();
    control.cancel();
    control.grant(EVERYTHING);
    let (_, reason, usage) = rest(&mut events, 4).await;
    assert_eq!(reason, FinishReason::Cancelled);
    assert!(usage.completion <= Tokens::new(8), "took {} tokens to stop", usage.completion);
}

async fn dropping_either_half_frees_the_place(engine: &dyn Engine) {
    for granted in [Tokens::ZERO, EVERYTHING] {
        let Generation { events, control } = engine.submit(job(engine, LONG, 30)).unwrap();
        control.grant(granted);
        drop(events);
        eventually("the place of a dropped receiver", || engine.load().free() == slots(engine))
            .await;
        drop(control);

        let Generation { events, control } = engine.submit(job(engine, LONG, 30)).unwrap();
        control.grant(granted);
        drop(control);
        eventually("the place of a dropped control", || engine.load().free() == slots(engine))
            .await;
        drop(events);
    }
}

async fn a_full_engine_refuses_at_once(engine: &dyn Engine) {
    let mut held = Vec::new();
    for _ in 0..slots(engine) {
        let mut generation = engine.submit(job(engine, LONG, 20)).unwrap();
        started(&mut generation.events).await.unwrap();
        held.push(generation);
    }
    eventually("all wait", || engine.load().waiting == slots(engine)).await;
    assert_eq!(engine.submit(job(engine, LONG, 20)).unwrap_err(), SubmitError::Busy);
    let Generation { mut events, control } = held.pop().unwrap();
    control.grant(EVERYTHING);
    rest(&mut events, 0).await;
    // The end of a job has been read, so its place is free: no waiting here.
    let again = engine.submit(job(engine, LONG, 20)).unwrap();
    drop((held, again));
    eventually("all places", || engine.load().free() == slots(engine)).await;
}

async fn jobs_run_side_by_side(engine: &dyn Engine) {
    let mut jobs = Vec::new();
    for _ in 0..slots(engine) {
        let mut generation = engine.submit(job(engine, LONG, 24)).unwrap();
        started(&mut generation.events).await.unwrap();
        jobs.push(generation);
    }
    // No job can end before every job has had its half: they must all be going at once.
    for half in [12, 24] {
        for Generation { control, .. } in &jobs {
            control.grant(Tokens::new(half));
        }
        for Generation { events, .. } in &mut jobs {
            for seen in half - 11..=half {
                token(events, seen).await;
            }
        }
    }
    for Generation { events, .. } in &mut jobs {
        let (_, reason, usage) = rest(events, 24).await;
        assert_eq!((reason, usage.completion), (FinishReason::Length, Tokens::new(24)));
    }
}

async fn a_waiting_job_does_not_hold_up_others(engine: &dyn Engine) {
    let Generation { mut events, control } = engine.submit(job(engine, LONG, 20)).unwrap();
    started(&mut events).await.unwrap();
    control.grant(Tokens::new(2));
    token(&mut events, 1).await;
    token(&mut events, 2).await;
    eventually("one waits", || engine.load().waiting == 1).await;
    run(engine, job(engine, LONG, 20)).await.unwrap();
    control.grant(EVERYTHING);
    assert_eq!(rest(&mut events, 2).await.1, FinishReason::Length);
}

async fn what_does_not_fit_is_refused_with_numbers(engine: &dyn Engine) {
    let context = engine.capabilities().context;
    let words = "word ".repeat(usize::try_from(context.get()).unwrap());
    let error = run(engine, job(engine, &words, 10)).await.unwrap_err();
    let SubmitError::ContextExceeded { prompt, context: told } = error else {
        panic!("expected ContextExceeded, got {error:?}")
    };
    assert!(prompt > context);
    assert_eq!(told, context);
}

fn malformed_and_foreign_jobs_are_refused(engine: &dyn Engine) {
    let mut foreign = job(engine, LONG, 10);
    foreign.spec.model = ModelHash::from_bytes([0xfe; 32]);
    assert_eq!(engine.submit(foreign).unwrap_err(), SubmitError::UnknownModel);
    let mut malformed = job(engine, LONG, 10);
    malformed.spec.stop = vec![String::new()];
    assert!(matches!(engine.submit(malformed).unwrap_err(), SubmitError::BadSpec(_)));
    let empty =
        job_of(engine.capabilities().model, Prompt::Chat(vec![]), Sampling::with_seed(1), 10);
    assert!(matches!(engine.submit(empty).unwrap_err(), SubmitError::BadSpec(_)));
}

fn slots(engine: &dyn Engine) -> u32 {
    engine.capabilities().slots
}

/// Whoever takes over an answer in the middle writes what the first engine would have written.
async fn an_answer_goes_on_behind_its_beginning(engine: &dyn Engine) {
    const TOKENS: u32 = 24;
    let whole = job(engine, LONG, TOKENS);
    let (prompt, sampling) = (whole.spec.prompt.clone(), whole.spec.sampling);
    let Generation { mut events, control } = engine.submit(whole).unwrap();
    let asked = started(&mut events).await.unwrap();
    control.grant(EVERYTHING);
    let mut pieces = Vec::new();
    for seen in 1..=TOKENS {
        pieces.push(token(&mut events, seen).await);
    }
    let (held_back, ..) = rest(&mut events, TOKENS).await;
    pieces.push(held_back);
    let mut taken_over = 0;
    for cut in [1, 2, 5, 12, 23_u32] {
        let (begun, follows) = pieces.split_at(usize::try_from(cut).unwrap());
        // Bytes that are no character yet, or none at all, are in no text that one could go on from.
        let is_held_back = begun.last().is_some_and(String::is_empty);
        if is_held_back || begun.concat().contains(char::REPLACEMENT_CHARACTER) {
            continue;
        }
        let model = engine.capabilities().model;
        let more = prompt.continued(&begun.concat());
        let next = run(engine, job_of(model, more, sampling, TOKENS - cut)).await.unwrap();
        assert_eq!(next.text, follows.concat(), "behind {begun:?}");
        assert_eq!(next.completion, Tokens::new(TOKENS - cut));
        assert!(next.prompt > asked, "the beginning is read, and counts as prompt");
        taken_over += 1;
    }
    assert!(taken_over > 0);
}
