//! How far a run is, told on standard error while it goes on.
//!
//! Owns: the thread that tells it, and the wish to stop. Must not: touch the run: the simulation's
//! thread leaves numbers here and looks whether it should end.

use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use simnet_host::Progress;
use simnet_scenario::Moment;

use crate::printer;

/// How often a bar moves, and how often a line is printed where there is no terminal.
const BAR: Duration = Duration::from_millis(250);
const LINE: Duration = Duration::from_secs(5);

/// What the simulation's thread and the others share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    at: AtomicU64,
    until: AtomicU64,
    events: AtomicU64,
    stop: Arc<AtomicBool>,
}

impl Shared {
    /// Called by the run: keeps its numbers, and says whether to go on.
    pub(crate) fn step(&self, progress: Progress) -> ControlFlow<()> {
        self.at.store(progress.at.as_nanos(), Ordering::Relaxed);
        self.until.store(progress.until.as_nanos(), Ordering::Relaxed);
        self.events.store(progress.events, Ordering::Relaxed);
        if self.stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// Ends runs on Ctrl-C, and on the signal by which schedulers end a job.
pub(crate) fn stop_on_signal(shared: &Arc<Shared>) {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // Without a handler the process just ends, as it would anyhow.
        let _kept = signal_hook::flag::register(signal, Arc::clone(&shared.stop));
    }
}

/// The thread that tells; ends with [`Teller::end`].
#[derive(Debug)]
pub(crate) struct Teller {
    end: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Teller {
    /// Starts to tell, unless `quiet`.
    pub(crate) fn start(shared: &Arc<Shared>, quiet: bool) -> Self {
        let (end, ended) = channel();
        let shared = Arc::clone(shared);
        let tell = move || {
            let bar = bar();
            let pause = if bar.is_some() { BAR } else { LINE };
            let start = Instant::now();
            while matches!(ended.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                let line = line(&shared, start.elapsed());
                match &bar {
                    Some(bar) => {
                        bar.set_length(shared.until.load(Ordering::Relaxed).max(1));
                        bar.set_position(shared.at.load(Ordering::Relaxed));
                        bar.set_message(line);
                    }
                    None => printer::note(&line),
                }
            }
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        };
        let thread = (!quiet).then(|| std::thread::spawn(tell));
        Self { end, thread }
    }

    /// Stops telling.
    pub(crate) fn end(self) {
        drop(self.end);
        if let Some(thread) = self.thread {
            let _panicked = thread.join();
        }
    }
}

fn bar() -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(1);
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}").ok()?;
    bar.set_style(style);
    Some(bar)
}

/// Virtual time, speed, events and memory in a line.
fn line(shared: &Shared, wall: Duration) -> String {
    let at = Moment::from_nanos(shared.at.load(Ordering::Relaxed));
    let until = Moment::from_nanos(shared.until.load(Ordering::Relaxed));
    let wall = wall.as_secs_f64().max(1e-3);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let events = shared.events.load(Ordering::Relaxed) as f64;
    let memory = resident().map_or(String::new(), |it| format!("  {} MB", it >> 20));
    let (at, until) = (at.as_secs_f64(), until.as_secs_f64());
    let (speed, rate) = (at / wall, events / wall / 1e3);
    format!("{at:.1} of {until:.0} s  {speed:.1}x  {rate:.0} k events/s{memory}")
}

/// Memory that this process has, in bytes.
pub(crate) fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4_096)
}
