//! The worker's life as the node sees it: started, watched, killed, started again.
//!
//! Owns: the child process, the threads at its pipes, the heartbeat and the back-off.
//! Must not: run llama.cpp, block a caller of the port, or let a worker's end be more than the end
//! of the jobs in it.

use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command as Process, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cocoon_protocol::limits;
use cocoon_protocol::units::Tokens;
use tokio::sync::{mpsc, watch};

use super::compute::build;
use super::jobs::Jobs;
use super::wire::{self, Command, FrameError, JobNumber, LoadRequest, Report};
use super::{LlamaSettings, StartError};
use crate::port::{
    Capabilities, Engine, EngineFailure, EngineJob, Generation, GenerationControl, Load, Steer,
    SubmitError, event_capacity,
};

/// How often the worker is pinged and abandoned jobs are looked for. Dropping a job's control
/// cancels it at once; this is for readers that are dropped alone while their job waits.
const TICK: Duration = Duration::from_millis(250);
/// Pause before the first restart. Doubled with each failure in a row, so that a model that kills
/// its worker does not occupy the machine.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between restarts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A worker that served this long was no failure in a row.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// A line of llama.cpp's log; longer ones are cut.
const LOG_LINE_BYTES: u64 = 2_048;

/// Where the worker is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It hashes and loads the model.
    Starting,
    /// It takes jobs of up to this context.
    Ready {
        /// Tokens that one job may use.
        context: Tokens,
    },
    /// It ended, and is started again after a pause. Nothing is known against the model.
    Restarting,
    /// It could not be started; it is tried again after a pause.
    Failed(StartError),
    /// The engine is being dropped.
    Stopped,
}

/// llama.cpp in a child process, as an [`Engine`]. Dropping it kills the process and ends its jobs
/// as draining.
#[derive(Debug)]
pub struct LlamaEngine {
    shared: Arc<Shared>,
    context: Tokens,
    supervisor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    settings: LlamaSettings,
    state: Mutex<State>,
    /// There may be commands to write.
    to_write: Condvar,
    /// The supervisor has something to look at.
    to_watch: Condvar,
    status: watch::Sender<Status>,
}

#[derive(Debug, Default)]
struct State {
    jobs: Jobs,
    /// Counts workers, so that a thread of an earlier one does not act on a later one's state.
    worker: u64,
    /// Whether the worker has loaded the model and takes jobs.
    ready: bool,
    /// Whether its reports have ended, and with what.
    ended: Option<End>,
    stopping: bool,
    pinged: Option<Ping>,
    process: Option<u32>,
}

/// A question that the worker has not answered.
#[derive(Clone, Copy, Debug)]
struct Ping {
    nonce: u64,
    at: Instant,
    written: bool,
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// Its output closed, or carried something that was no report.
    Died,
    /// It reported that it cannot load the model.
    NotLoaded(super::LoadFailure),
    /// It was silent for too long.
    Silent,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everyone who follows the status. Never called with the state locked: a follower may
    /// hold the status while it asks for the engine's load, which locks the state.
    fn publish(&self, status: Status) {
        self.status.send_replace(status);
    }

    /// Ends the jobs of a worker that is gone; `false` when the engine is being dropped.
    fn forget_worker(&self, failure: &EngineFailure) -> bool {
        let mut state = self.lock();
        state.ready = false;
        state.jobs.fail(failure);
        !state.stopping
    }

    /// Waits out a pause; `false` when the engine is being dropped.
    fn pause(&self, pause: Duration) -> bool {
        let goes_on = |state: &mut State| !state.stopping;
        let waited = self.to_watch.wait_timeout_while(self.lock(), pause, goes_on);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !state.stopping
    }
}

impl LlamaEngine {
    /// Starts a worker and waits until it has loaded the model. An error leaves no process behind.
    pub async fn start(settings: LlamaSettings) -> Result<Self, StartError> {
        let (status, mut statuses) = watch::channel(Status::Starting);
        let shared = Arc::new(Shared {
            settings,
            state: Mutex::default(),
            to_write: Condvar::new(),
            to_watch: Condvar::new(),
            status,
        });
        let supervised = Arc::clone(&shared);
        let supervisor = thread::Builder::new()
            .name("engine-supervisor".into())
            .spawn(move || supervise(&supervised))
            .map_err(|error| spawn_error(&shared.settings, &error))?;
        let mut engine = Self { shared, context: Tokens::ZERO, supervisor: Some(supervisor) };
        let settled = |status: &Status| !matches!(status, Status::Starting | Status::Restarting);
        match statuses.wait_for(settled).await.as_deref() {
            Ok(Status::Ready { context }) => engine.context = *context,
            Ok(Status::Failed(error)) => return Err(error.clone()),
            Ok(Status::Starting | Status::Restarting | Status::Stopped) | Err(_) => {
                return Err(StartError::Died);
            }
        }
        Ok(engine)
    }

    /// Follows the worker's life, for readiness and metrics.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// The worker's process id while it lives, for the operator and for metrics of its memory.
    pub fn worker_process(&self) -> Option<u32> {
        self.shared.lock().process
    }
}

impl Engine for LlamaEngine {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            model: self.shared.settings.model,
            context: self.context,
            slots: self.shared.settings.slots,
            build: build(),
            prompt_bytes: limits::PROMPT_BYTES,
        }
    }

    fn load(&self) -> Load {
        self.shared.lock().jobs.load(self.shared.settings.slots)
    }

    fn submit(&self, mut job: EngineJob) -> Result<Generation, SubmitError> {
        job.spec.check().map_err(SubmitError::BadSpec)?;
        if job.spec.model != self.shared.settings.model {
            return Err(SubmitError::UnknownModel);
        }
        // The context bounds what can come, whatever was asked, and so the channel.
        job.spec.max_completion = job.spec.max_completion.min(self.context);
        let (events, receiver) = mpsc::channel(event_capacity(job.spec.max_completion));
        let mut state = self.shared.lock();
        if state.stopping {
            return Err(SubmitError::ShuttingDown);
        }
        if !state.ready {
            return Err(SubmitError::NotReady);
        }
        let slots = usize::try_from(self.shared.settings.slots).unwrap_or(usize::MAX);
        if state.jobs.len() >= slots {
            return Err(SubmitError::Busy);
        }
        let number = state.jobs.add(job, events);
        let steer = LlamaControl { shared: Arc::clone(&self.shared), worker: state.worker, number };
        drop(state);
        self.shared.to_write.notify_all();
        Ok(Generation { events: receiver, control: GenerationControl::new(steer) })
    }
}

impl Drop for LlamaEngine {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        state.ready = false;
        state.jobs.drain();
        drop(state);
        self.shared.to_write.notify_all();
        self.shared.to_watch.notify_all();
        if let Some(supervisor) = self.supervisor.take() {
            // A kill and a wait: milliseconds.
            let _ = supervisor.join();
        }
    }
}

/// The steering of one job.
#[derive(Debug)]
struct LlamaControl {
    shared: Arc<Shared>,
    worker: u64,
    number: JobNumber,
}

impl LlamaControl {
    fn change(&self, change: impl FnOnce(&mut Jobs)) {
        let mut state = self.shared.lock();
        if state.worker == self.worker {
            change(&mut state.jobs);
            drop(state);
            self.shared.to_write.notify_all();
        }
    }
}

impl Steer for LlamaControl {
    fn grant(&self, total_completion: Tokens) {
        self.change(|jobs| jobs.grant(self.number, total_completion));
    }

    fn cancel(&self) {
        self.change(|jobs| jobs.cancel(self.number));
    }
}

/// Runs workers one after another until the engine is dropped.
fn supervise(shared: &Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        let outcome = run_worker(shared);
        let (failure, status) = match outcome {
            Ok(End::Silent) => (EngineFailure::Hung, Status::Restarting),
            Ok(End::Died) => (EngineFailure::Crashed, Status::Restarting),
            Ok(End::NotLoaded(failure)) => {
                (EngineFailure::Crashed, Status::Failed(StartError::Load(failure)))
            }
            Err(error) => (EngineFailure::Crashed, Status::Failed(error)),
        };
        if begun.elapsed() >= STABLE_AFTER {
            pause = FIRST_PAUSE;
        }
        // The status first: who reads that its job failed and then waits for `Ready` waits for the
        // next worker, not for the news about this one.
        shared.publish(status.clone());
        if !shared.forget_worker(&failure) {
            break;
        }
        tracing::error!(
            ?status,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "engine worker ended; restarting it"
        );
        if !shared.pause(pause) {
            break;
        }
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        shared.publish(Status::Starting);
    }
    shared.publish(Status::Stopped);
}

/// Runs one worker to its end. An error means that it never became ready and why.
fn run_worker(shared: &Arc<Shared>) -> Result<End, StartError> {
    let settings = &shared.settings;
    let request = load_request(settings)?;
    let mut child = Process::new(&settings.worker)
        .args(&settings.worker_arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| spawn_error(settings, &error))?;
    let worker = {
        let mut state = shared.lock();
        state.worker = state.worker.wrapping_add(1);
        state.ended = None;
        state.pinged = None;
        state.process = Some(child.id());
        state.worker
    };
    let threads = attach(shared, &mut child, worker, request);
    let end = watch_worker(shared);
    // Whatever it was doing, it has nothing worth keeping; and a dead process is waited for so
    // that it does not stay as a zombie.
    let _ = child.kill();
    let exit = child.wait();
    shared.lock().process = None;
    tracing::debug!(?exit, ?end, "engine worker has ended");
    shared.to_write.notify_all();
    for thread in threads {
        let _ = thread.join();
    }
    end
}

fn load_request(settings: &LlamaSettings) -> Result<LoadRequest, StartError> {
    Ok(LoadRequest {
        path: settings.path.to_str().ok_or(StartError::BadPath)?.to_owned(),
        model: settings.model,
        context: settings.context,
        cells: settings.cells,
        slots: settings.slots,
        threads: settings.threads,
        gpu_layers: settings.gpu_layers,
        private: settings.private_weights,
    })
}

fn spawn_error(settings: &LlamaSettings, error: &std::io::Error) -> StartError {
    StartError::Spawn { program: settings.worker.clone(), kind: error.kind() }
}

/// Starts the threads at a worker's three pipes. All of them end when the process does.
fn attach(
    shared: &Arc<Shared>,
    child: &mut Child,
    worker: u64,
    request: LoadRequest,
) -> Vec<JoinHandle<()>> {
    let mut threads = Vec::new();
    if let Some(input) = child.stdin.take() {
        let shared = Arc::clone(shared);
        threads.push(thread::spawn(move || {
            let written = write_commands(&shared, worker, input, request);
            tracing::debug!(?written, "commands to the engine worker have ended");
        }));
    }
    if let Some(output) = child.stdout.take() {
        let shared = Arc::clone(shared);
        threads.push(thread::spawn(move || read_reports(&shared, worker, output)));
    }
    if let Some(log) = child.stderr.take() {
        threads.push(thread::spawn(move || read_log(log)));
    }
    threads
}

/// Writes commands as they come up, until the worker has ended.
fn write_commands(
    shared: &Shared,
    worker: u64,
    input: ChildStdin,
    request: LoadRequest,
) -> Result<(), FrameError> {
    let mut sink = BufWriter::new(input);
    let mut commands = vec![Command::Load(request)];
    loop {
        for command in commands.drain(..) {
            wire::write(&mut sink, &command)?;
        }
        sink.flush().map_err(FrameError::Io)?;
        let mut state = shared.lock();
        loop {
            if state.stopping || state.ended.is_some() || state.worker != worker {
                return Ok(());
            }
            commands = if state.ready { state.jobs.commands() } else { Vec::new() };
            if let Some(ping) = state.pinged.as_mut().filter(|ping| !ping.written) {
                ping.written = true;
                commands.push(Command::Ping { nonce: ping.nonce });
            }
            if !commands.is_empty() {
                break;
            }
            state = shared.to_write.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Passes reports on until the pipe closes or carries something else.
fn read_reports(shared: &Shared, worker: u64, output: ChildStdout) {
    let mut source = BufReader::new(output);
    let mut end = End::Died;
    loop {
        let report = match wire::read::<Report>(&mut source) {
            Ok(Some(report)) => report,
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the engine worker's output is not its protocol");
                break;
            }
        };
        let mut state = shared.lock();
        if state.stopping || state.worker != worker || state.ended.is_some() {
            break;
        }
        match report {
            // What the worker has hashed and loaded is what this node says it serves, or nothing is.
            Report::Ready { model, .. } if model != shared.settings.model => {
                end = End::NotLoaded(super::LoadFailure::WrongHash { actual: model });
                break;
            }
            Report::Ready { context, .. } => {
                state.ready = true;
                drop(state);
                shared.publish(Status::Ready { context });
                tracing::info!(model = ?shared.settings.model, %context, "engine is ready");
            }
            Report::LoadFailed(failure) => {
                end = End::NotLoaded(failure);
                break;
            }
            Report::Pong { nonce } => {
                state.pinged = state.pinged.filter(|ping| ping.nonce != nonce);
            }
            Report::Started { .. }
            | Report::Text { .. }
            | Report::Finished { .. }
            | Report::Failed { .. } => {
                // `Started` makes commands out of what was granted or cancelled before it.
                let started = matches!(report, Report::Started { .. });
                if state.jobs.take(report).is_err() {
                    tracing::error!("the engine worker broke the rules of the engine port");
                    break;
                }
                drop(state);
                if started {
                    shared.to_write.notify_all();
                }
            }
        }
    }
    let mut state = shared.lock();
    if state.worker == worker && state.ended.is_none() {
        state.ended = Some(end);
        state.ready = false;
        drop(state);
        shared.to_watch.notify_all();
    }
}

/// llama.cpp's chatter. It names files and shapes of tensors, never text of a prompt.
fn read_log(log: ChildStderr) {
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    while matches!(log.by_ref().take(LOG_LINE_BYTES).read_until(b'\n', &mut line), Ok(read) if read > 0)
    {
        tracing::debug!(target: "cocoon_engine::llama_cpp", "{}", String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

/// Waits for a worker's end, and asks it for a sign of life every now and then.
fn watch_worker(shared: &Shared) -> Result<End, StartError> {
    let settings = &shared.settings;
    let begun = Instant::now();
    let mut nonce = 0_u64;
    let mut ever_ready = false;
    let mut state = shared.lock();
    loop {
        ever_ready |= state.ready;
        if state.stopping {
            return Ok(End::Died);
        }
        if let Some(end) = state.ended.clone() {
            return if end == End::Died && !ever_ready { Err(StartError::Died) } else { Ok(end) };
        }
        if !ever_ready && begun.elapsed() > settings.load_within {
            state.ended = Some(End::Silent);
            return Err(StartError::TooSlow);
        }
        match state.pinged {
            Some(ping) if ping.at.elapsed() > settings.silent_for => {
                state.ended = Some(End::Silent);
                return Ok(End::Silent);
            }
            None if ever_ready => {
                nonce = nonce.wrapping_add(1);
                state.pinged = Some(Ping { nonce, at: Instant::now(), written: false });
                shared.to_write.notify_all();
            }
            Some(_) | None => {}
        }
        if state.jobs.cancel_abandoned() {
            shared.to_write.notify_all();
        }
        let waited = shared.to_watch.wait_timeout(state, TICK);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}
