//! The worker process: loads one model, reads commands from its input, writes reports to its output.
//!
//! Owns: the process's threads, and its end: it ends when its input does, so it never outlives the
//! node, however the node ended.
//! Must not: open a file other than the model, a socket, or a log; its error output is llama.cpp's.

use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use cocoon_protocol::identity::ModelHash;
use cocoon_protocol::units::Tokens;

use super::batcher::{Batcher, Prepared};
use super::compute::{Context, Model};
use super::prepare::{prepare, template};
use super::wire::{self, Command, FrameError, JobNumber, LoadFailure, LoadRequest, Report};
use crate::chat::ChatTemplate;
use crate::hashing::{copy_and_hash, hash_file};
use crate::port::{EngineFailure, EngineJob, SubmitError};

/// Messages between the threads. The node has at most `slots` jobs here, each with a handful of
/// messages under way; when a queue is full, the sender waits, and the pipe holds the rest.
const INBOX: usize = 64;
/// Time for the step under way when the input has ended; then the process ends regardless.
const LAST_STEP: Duration = Duration::from_secs(2);

/// Runs the worker until its input ends. To be called by the hidden sub-command of the node's
/// binary, before anything else touches standard input or output.
///
/// Exit code 0: the node closed the pipe. 1: the model was not loaded (the node was told why), or
/// the pipe carried something else than the node's messages.
pub fn worker_main() -> ExitCode {
    let mut input = io::stdin().lock();
    let output = Output::default();
    let Ok(Some(Command::Load(request))) = wire::read(&mut input) else {
        return ExitCode::FAILURE;
    };
    let loaded = match load(&request) {
        Ok(loaded) => loaded,
        Err(failure) => {
            let _ = output.send(&[Report::LoadFailed(failure)]);
            return ExitCode::FAILURE;
        }
    };
    let inbox = loaded.start(request, output);
    let outcome = serve(&mut input, &inbox);
    inbox.end();
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Standard output, which carries reports and nothing else.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<()>>);

impl Output {
    /// Writes `reports` together. An error means that the node is gone.
    fn send(&self, reports: &[Report]) -> Result<(), FrameError> {
        let _turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sink = BufWriter::new(io::stdout().lock());
        for report in reports {
            wire::write(&mut sink, report)?;
        }
        sink.flush().map_err(FrameError::Io)
    }
}

struct Loaded {
    model: Arc<Model>,
    /// Of the bytes that llama.cpp was given.
    hash: ModelHash,
    template: ChatTemplate,
}

/// Checks the file's hash, then loads it.
fn load(request: &LoadRequest) -> Result<Loaded, LoadFailure> {
    let weights = Weights::open(request).map_err(|_| LoadFailure::Unreadable)?;
    let hash = weights.hash;
    if hash != request.model {
        return Err(LoadFailure::WrongHash { actual: hash });
    }
    let model = Model::load(&LoadRequest { path: weights.path(), ..request.clone() })?;
    let template = template(&model)?;
    // llama.cpp has mapped or read it by now; the map outlives the descriptor.
    drop(weights);
    Ok(Loaded { model: Arc::new(model), hash, template })
}

/// Weights that were hashed, where llama.cpp can find them.
struct Weights {
    hash: ModelHash,
    original: String,
    /// A file in memory that has no name.
    #[cfg(target_os = "linux")]
    copy: Option<std::fs::File>,
}

impl Weights {
    #[cfg(target_os = "linux")]
    fn open(request: &LoadRequest) -> io::Result<Self> {
        let original = request.path.clone();
        if !request.private {
            let hash = hash_file(original.as_ref(), |_, _| ())?;
            return Ok(Self { hash, original, copy: None });
        }
        let memory = rustix::fs::memfd_create("weights", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut copy = std::fs::File::from(memory);
        let hash = copy_and_hash(original.as_ref(), &mut copy)?;
        Ok(Self { hash, original, copy: Some(copy) })
    }

    #[cfg(not(target_os = "linux"))]
    fn open(request: &LoadRequest) -> io::Result<Self> {
        if request.private {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let original = request.path.clone();
        Ok(Self { hash: hash_file(original.as_ref(), |_, _| ())?, original })
    }

    fn path(&self) -> String {
        #[cfg(target_os = "linux")]
        if let Some(copy) = &self.copy {
            use std::os::fd::AsRawFd as _;
            return format!("/proc/self/fd/{}", copy.as_raw_fd());
        }
        self.original.clone()
    }
}

/// The way to the worker's threads.
struct Inbox {
    decode: SyncSender<Work>,
    prepare: SyncSender<(JobNumber, EngineJob)>,
    ended: Receiver<()>,
}

/// What the decoding thread is told.
enum Work {
    Admit(Box<Prepared>),
    Grant { number: JobNumber, total: Tokens },
    Cancel { number: JobNumber },
    Ping { nonce: u64 },
    End,
}

impl Loaded {
    fn start(self, request: LoadRequest, output: Output) -> Inbox {
        let (decode, works) = sync_channel(INBOX);
        let (prepare, jobs) = sync_channel(INBOX);
        let (ended_sender, ended) = sync_channel::<()>(1);
        let (model, hash) = (Arc::clone(&self.model), self.hash);
        let reports = output.clone();
        // The threads end with the process; `Inbox::end` waits for the one that matters.
        thread::spawn(move || {
            decode_loop((&model, hash), &request, &works, &reports);
            drop(ended_sender);
        });
        let to_decode = decode.clone();
        thread::spawn(move || prepare_loop(&self, &jobs, &to_decode, &output));
        Inbox { decode, prepare, ended }
    }
}

impl Inbox {
    fn end(&self) {
        if self.decode.try_send(Work::End).is_ok() {
            let _: Result<(), RecvTimeoutError> = self.ended.recv_timeout(LAST_STEP);
        }
    }
}

/// Passes commands on until the input ends.
fn serve(input: &mut impl io::Read, inbox: &Inbox) -> Result<(), FrameError> {
    while let Some(command) = wire::read(input)? {
        let passed = match command {
            Command::Job { number, job } => inbox.prepare.send((number, job)).is_ok(),
            Command::Grant { number, total } => {
                inbox.decode.send(Work::Grant { number, total }).is_ok()
            }
            Command::Cancel { number } => inbox.decode.send(Work::Cancel { number }).is_ok(),
            Command::Ping { nonce } => inbox.decode.send(Work::Ping { nonce }).is_ok(),
            Command::Load(_) => return Err(FrameError::Malformed),
        };
        if !passed {
            break;
        }
    }
    Ok(())
}

fn prepare_loop(
    loaded: &Loaded,
    jobs: &Receiver<(JobNumber, EngineJob)>,
    decode: &SyncSender<Work>,
    output: &Output,
) {
    for (number, job) in jobs {
        let passed = match prepare(&loaded.model, &loaded.template, number, job) {
            Ok(prepared) => decode.send(Work::Admit(Box::new(prepared))).is_ok(),
            Err(error) => output.send(&[refused(number, error)]).is_ok(),
        };
        if !passed {
            return;
        }
    }
}

fn refused(number: JobNumber, error: SubmitError) -> Report {
    Report::Failed { number, failure: EngineFailure::Refused(error) }
}

/// Steps while there is work, and sleeps in its inbox while there is none.
fn decode_loop(
    (model, hash): (&Model, ModelHash),
    request: &LoadRequest,
    works: &Receiver<Work>,
    output: &Output,
) {
    let context_tokens = model.context_tokens(request.context.get());
    let cells = Tokens::new(request.cells.get().max(context_tokens));
    let mut context = match Context::new(model, request, cells.get()) {
        Ok(context) => context,
        Err(failure) => {
            let _ = output.send(&[Report::LoadFailed(failure)]);
            return;
        }
    };
    let tokens = Tokens::new(context_tokens);
    let mut batcher = Batcher::new(request.slots, cells, tokens);
    let mut reports = vec![Report::Ready { context: tokens, model: hash }];
    loop {
        if output.send(&reports).is_err() {
            return;
        }
        reports.clear();
        let mut next = if batcher.has_work() {
            works.try_recv()
        } else {
            works.recv().map_err(|_| TryRecvError::Disconnected)
        };
        loop {
            match next {
                Ok(Work::End) | Err(TryRecvError::Disconnected) => return,
                Ok(work) => reports.extend(carry_out(work, &mut batcher, &mut context)),
                Err(TryRecvError::Empty) => break,
            }
            next = works.try_recv();
        }
        batcher.step(&mut context, &mut reports);
    }
}

fn carry_out(work: Work, batcher: &mut Batcher, context: &mut Context<'_>) -> Option<Report> {
    match work {
        Work::Admit(job) => {
            let number = job.number;
            Some(batcher.admit(*job, context).unwrap_or_else(|error| refused(number, error)))
        }
        Work::Grant { number, total } => {
            batcher.grant(number, total);
            None
        }
        Work::Cancel { number } => batcher.cancel(number),
        Work::Ping { nonce } => Some(Report::Pong { nonce }),
        Work::End => None,
    }
}
