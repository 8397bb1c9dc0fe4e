//! Every message there and back, and hostile frames.

use proptest::prelude::*;

use super::*;

fn job() -> EngineJob {
    EngineJob {
        spec: JobSpec {
            model: ModelHash::from_bytes([3; 32]),
            prompt: Prompt::Chat(vec![
                Turn { role: Role::System, content: String::new() },
                Turn { role: Role::User, content: "é".into() },
                Turn { role: Role::Assistant, content: "a".into() },
            ]),
            sampling: Sampling { top_k: 40, min_p: 0.05, ..Sampling::with_seed(u64::MAX) },
            stop: vec!["\n\n".into(), "###".into()],
            max_completion: Tokens::new(64),
        },
        scope: PrefixScope::from_bytes([9; 32]),
        now: Timestamp::from_unix_millis(1_700_000_000_123),
    }
}

fn commands() -> Vec<Command> {
    let mut raw = job();
    raw.spec.prompt = Prompt::Text("raw".into());
    raw.spec.stop.clear();
    let number = JobNumber(7);
    vec![
        Command::Load(LoadRequest {
            private: true,
            path: "/models/m.gguf".into(),
            model: ModelHash::from_bytes([1; 32]),
            context: Tokens::new(8_192),
            cells: Tokens::new(4_096),
            slots: 8,
            threads: 3,
            gpu_layers: 999,
        }),
        Command::Job { number, job: job() },
        Command::Job { number, job: raw },
        Command::Grant { number, total: Tokens::MAX },
        Command::Cancel { number },
        Command::Ping { nonce: 5 },
    ]
}

fn reports() -> Vec<Report> {
    let number = JobNumber(u64::MAX);
    let usage = Usage { prompt: Tokens::new(1), completion: Tokens::new(2) };
    let mut reports = vec![
        Report::Ready { context: Tokens::new(512), model: ModelHash::from_bytes([7; 32]) },
        Report::Started { number, prompt: Tokens::new(12) },
        Report::Text { number, text: "piece 🦀".into(), completion: Tokens::new(3) },
        Report::Pong { nonce: 5 },
    ];
    let actual = ModelHash::from_bytes([5; 32]);
    reports.extend(
        [
            LoadFailure::Unreadable,
            LoadFailure::WrongHash { actual },
            LoadFailure::NotLoadable,
            LoadFailure::BadTemplate,
            LoadFailure::NoContext,
        ]
        .map(Report::LoadFailed),
    );
    let reasons = [
        FinishReason::Stop,
        FinishReason::Length,
        FinishReason::Cancelled,
        FinishReason::Unpaid,
        FinishReason::Failed,
        FinishReason::Draining,
    ];
    reports.extend(reasons.map(|reason| Report::Finished { number, reason, usage }));
    let refusals = [
        SubmitError::Busy,
        SubmitError::BadDialogue { reason: "roles".into() },
        SubmitError::ContextExceeded { prompt: Tokens::new(9), context: Tokens::new(8) },
    ];
    let refused = |error| Report::Failed { number, failure: EngineFailure::Refused(error) };
    reports.extend(refusals.map(refused));
    reports.push(Report::Failed { number, failure: EngineFailure::Compute });
    reports
}

fn frame(message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, message).unwrap();
    bytes
}

#[test]
fn every_message_survives_the_pipe() {
    let (commands, reports) = (commands(), reports());
    let bytes: Vec<u8> = commands.iter().flat_map(frame).collect();
    let mut source = bytes.as_slice();
    for command in &commands {
        assert_eq!(read::<Command>(&mut source).unwrap().as_ref(), Some(command));
    }
    assert_eq!(read::<Command>(&mut source).unwrap(), None);
    let bytes: Vec<u8> = reports.iter().flat_map(frame).collect();
    let mut source = bytes.as_slice();
    for report in &reports {
        assert_eq!(read::<Report>(&mut source).unwrap().as_ref(), Some(report));
    }
    assert_eq!(read::<Report>(&mut source).unwrap(), None);
}

#[test]
fn a_truncated_or_padded_frame_is_no_message() {
    for bytes in commands().iter().map(frame).chain(reports().iter().map(frame)) {
        let [_, _, _, _, message @ ..] = bytes.as_slice() else { panic!() };
        for end in 0..message.len() {
            let length = u32::try_from(end).unwrap().to_be_bytes();
            let cut = [&length[..], &message[..end]].concat();
            let _ = read::<Report>(&mut cut.as_slice());
            assert!(read::<Command>(&mut cut.as_slice()).ok().flatten().is_none_or(|command| {
                // A shorter message may be another whole one; it must then be written alike.
                frame(&command) == cut
            }));
        }
        let padded = [message, &[0]].concat();
        let length = u32::try_from(padded.len()).unwrap().to_be_bytes();
        let padded = [&length[..], &padded].concat();
        assert!(read::<Command>(&mut padded.as_slice()).is_err());
    }
}

#[test]
fn a_frame_beyond_the_bound_is_refused_before_memory_is_taken() {
    let prefix = u32::MAX.to_be_bytes();
    assert!(matches!(read::<Command>(&mut prefix.as_slice()), Err(FrameError::TooLarge)));
    let mut job = job();
    job.spec.prompt = Prompt::Text("x".repeat(FRAME_BYTES));
    let command = Command::Job { number: JobNumber(1), job };
    assert!(matches!(write(&mut Vec::new(), &command), Err(FrameError::TooLarge)));
}

#[test]
fn the_largest_legal_job_fits_a_frame() {
    let mut job = job();
    let turn =
        Turn { role: Role::User, content: "x".repeat(limits::PROMPT_BYTES / limits::PROMPT_TURNS) };
    job.spec.prompt = Prompt::Chat(vec![turn; limits::PROMPT_TURNS]);
    job.spec.stop = vec!["x".repeat(limits::STOP_STRING_BYTES); limits::STOP_STRINGS];
    job.spec.check().unwrap();
    assert_eq!(job.spec.prompt.text_bytes(), limits::PROMPT_BYTES);
    frame(&Command::Job { number: JobNumber(1), job });
}

proptest! {
    #[test]
    fn random_frames_never_panic(tag in 0_u8..9, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let body = [&[tag], bytes.as_slice()].concat();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let whole = [&length[..], &body].concat();
        let _ = read::<Command>(&mut whole.as_slice());
        let _ = read::<Report>(&mut whole.as_slice());
    }
}
