//! The host itself: the shell around `cocoon_protocol::Node` as a synchronous machine.
//!
//! Owns: what of a host outlives its process, and the process's beginning and end.
//! Must not: know the tier, or any rule of the protocol.
//!
//! What the node's shell does with tasks and channels happens here in one call: [`Host::handle`].
//! The edges (sessions, a job's reader, the engine) act at once, as their tasks would; what they
//! have for the protocol waits in a bounded inbox while the store commits, and is then handled in
//! batches, as the node's driver does. No effect leaves before the records that came with it are
//! durable.

mod clock;
mod driver;
mod effects;
mod inbox;
mod process;
mod reading;
mod serving;
mod session;
mod spare;
mod spec;
mod view;

use std::sync::Arc;
use std::time::Duration;

use cocoon_protocol::attest::Tier;
use cocoon_protocol::identity::NodeId;
use simnet_scenario::Moment;

pub use clock::Clock;
pub use spec::{ConsumerSpec, HostSpec, HotKey, ProviderSpec};

use crate::behaviour::{Behaviour, Guise};
use crate::evidence::Evidence;
use crate::fabric::{Fabric, SessionId};
use crate::observation::{FailureKind, Observation};
use crate::stimulus::{DialFailure, Stimulus};
use crate::store::{CrashPoint, Store};
use driver::Shell;
use process::{End, Process};
use serving::Serving;

/// What a host's next stimulus is, as far as that says which memory it needs. A processor has only so
/// many reads under way, so that what is not needed is better not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    /// A message to it as a consumer: nearly always a piece of text.
    Text,
    /// Its engine has written something.
    Written,
    /// Anything.
    Other,
}

/// One simulated node.
///
/// A host to which nothing happens is next to nothing: a consumer that was started and has had no
/// job has only that written down, and its process and store are made when something happens to
/// it. So a million nodes cost what those of them need that do something.
#[derive(Debug)]
pub struct Host {
    spec: Arc<HostSpec>,
    /// Its process runs and has done nothing yet: it is not in memory.
    idle: bool,
    /// Whether a process has ever started on it.
    has_run: bool,
    body: Option<Box<Body>>,
    behaviour: Option<Box<dyn Behaviour>>,
}

/// What a host has once something has happened to it.
#[derive(Debug, Default)]
struct Body {
    process: Option<Process>,
    store: Store,
    /// Sessions dialled so far.
    dials: u64,
}

/// The store of a host that has never written.
static EMPTY: Store = Store::new();

impl Host {
    /// A host that has never run. It does nothing before [`Stimulus::Start`].
    pub fn new(spec: Arc<HostSpec>) -> Self {
        let behaviour = spec.behaviour.as_ref().and_then(|plan| plan.behaviour(&spec));
        Self { spec, idle: false, has_run: false, body: None, behaviour }
    }

    /// What it is.
    pub fn spec(&self) -> &HostSpec {
        &self.spec
    }

    /// Its identity.
    pub fn node(&self) -> NodeId {
        self.spec.key.id()
    }

    /// What it would remember after a crash.
    pub fn store(&self) -> &Store {
        self.body.as_ref().map_or(&EMPTY, |body| &body.store)
    }

    /// Whether its process runs.
    pub fn runs(&self) -> bool {
        self.idle || self.process().is_some()
    }

    fn process(&self) -> Option<&Process> {
        self.body.as_ref()?.process.as_ref()
    }

    /// The protocol's state, while it runs and has done anything; for displays and checks.
    pub fn protocol(&self) -> Option<&cocoon_protocol::Node> {
        self.process().map(|process| &process.node)
    }

    /// Names the memory that its next stimulus will need, `step` pointers away from here, as places and
    /// bytes. It reads what the step before has named and no more: so a caller who has asked the
    /// processor for each step's memory some time before the next waits for none of it.
    pub fn approach(&self, step: u8, coming: Coming, ask: &mut impl FnMut(*const u8, usize)) {
        if step == 0 {
            if coming == Coming::Other {
                near(&*self.spec, ask);
            }
            if let Some(body) = &self.body {
                match coming {
                    Coming::Text | Coming::Written => near(&body.process, ask),
                    Coming::Other => near(&**body, ask),
                }
            }
            return;
        }
        let Some(body) = &self.body else { return };
        if step == 1 && coming == Coming::Other {
            body.store.approach(ask);
        }
        if let Some(process) = &body.process {
            process.approach(step, coming, ask);
        }
    }

    /// The sessions that its running jobs are served in, or the first of them.
    pub fn sessions_served(&self) -> impl Iterator<Item = SessionId> {
        let serving = self.process().and_then(|process| process.serving.as_deref());
        serving.into_iter().flat_map(Serving::sessions).take(2)
    }

    /// Makes the process die at a point of a commit, counted from the host's first ever; for tests
    /// that try them all.
    pub fn plan_crash(&mut self, commit: u64, point: CrashPoint) {
        self.body.get_or_insert_default().store.plan_crash(commit, point);
    }

    /// What a consumer that opens a session is shown; `None` if it does not provide.
    pub fn evidence(&self) -> Option<Evidence> {
        let provider = self.spec.provider.as_ref()?;
        let honest = Evidence {
            tier: provider.tier,
            genuine: provider.genuine,
            hostile: self.spec.hostile,
            digest: spec::evidence_digest(&self.spec, provider),
            manifest: provider.manifest(),
        };
        Some(match &self.behaviour {
            None => honest,
            Some(behaviour) => behaviour.evidence(honest),
        })
    }

    /// Whether a consumer may open a session now. The fabric asks before it answers a dial.
    pub fn door(&self) -> Result<(), DialFailure> {
        let process = self.process().ok_or(DialFailure::Unreachable)?;
        let serving = process.serving.as_ref().ok_or(DialFailure::Unreachable)?;
        if serving.has_room() { Ok(()) } else { Err(DialFailure::Busy) }
    }

    /// How long making and checking evidence takes on this host, for a fabric that models it: a
    /// signature and a chain of three certificates for a TEE, next to nothing without one.
    pub fn attestation(&self) -> Duration {
        match self.spec.provider.as_ref().map(|provider| provider.tier) {
            Some(Tier::Attested | Tier::Confidential) => Duration::from_millis(2),
            Some(Tier::Open) | None => Duration::ZERO,
        }
    }

    /// Something happens.
    pub fn handle(&mut self, stimulus: Stimulus, fabric: &mut dyn Fabric) {
        let Some(mut behaviour) = self.behaviour.take() else {
            self.react(stimulus, fabric);
            return;
        };
        if let Some(stimulus) = behaviour.meet(stimulus, fabric) {
            self.react(stimulus, &mut Guise::new(&mut *behaviour, fabric));
        }
        self.behaviour = Some(behaviour);
    }

    fn react(&mut self, stimulus: Stimulus, fabric: &mut dyn Fabric) {
        if matches!(stimulus, Stimulus::Start) {
            self.start(fabric);
            return;
        }
        if std::mem::take(&mut self.idle) {
            self.wake_up(fabric);
        }
        let Some(body) = &mut self.body else { return };
        let Body { process: Some(process), store, dials } = &mut **body else { return };
        let now = fabric.now();
        let mut shell = Shell { spec: &self.spec, store, dials, process, now, fabric };
        shell.take(stimulus);
        self.end_if_due(fabric);
    }

    /// Its process dies: all that is not durable is lost. [`Stimulus::Start`] starts it again. A
    /// commit that was under way has reached the disk or has not; the seed decides.
    pub fn crash(&mut self, fabric: &mut dyn Fabric) {
        if std::mem::take(&mut self.idle) {
            fabric.observe(Observation::Crashed);
            return;
        }
        let Some(body) = &mut self.body else { return };
        let Some(mut process) = body.process.take() else { return };
        if let Some(commit) = process.commit.take()
            && body.store.reached_disk(self.spec.seed, self.spec.id)
        {
            let records = commit.batch.output.persist;
            let stated = body.store.keep(&self.spec.store, records, |kept| {
                driver::state(kept, fabric);
            });
            if stated.is_err() {
                fabric.observe(Observation::Defect { rule: driver::UNFAITHFUL });
            }
        }
        lose(process, fabric);
    }

    fn start(&mut self, fabric: &mut dyn Fabric) {
        if self.runs() {
            return;
        }
        // A consumer that has stored nothing has nothing to say when it starts, and who has no role
        // never has. A host that has no body has neither stored nor said anything.
        let restart = std::mem::replace(&mut self.has_run, true);
        self.store().recall(|kept| driver::state(kept, fabric));
        fabric.observe(Observation::Started { restart });
        if self.body.is_none() && self.spec.provider.is_none() {
            self.idle = true;
            return;
        }
        self.wake_up(fabric);
        self.end_if_due(fabric);
    }

    /// The process, as it begins.
    fn wake_up(&mut self, fabric: &mut dyn Fabric) {
        let body = self.body.get_or_insert_default();
        let Some(process) = Process::start(&self.spec, &body.store) else {
            fabric.observe(Observation::Defect { rule: "a stored record cannot be read again" });
            return;
        };
        let Body { process: place, store, dials } = &mut **body;
        let (process, now) = (place.insert(process), fabric.now());
        let mut shell = Shell { spec: &self.spec, store, dials, process, now, fabric };
        shell.begin();
    }

    fn end_if_due(&mut self, fabric: &mut dyn Fabric) {
        let Some(body) = &mut self.body else { return };
        let Some(end) = body.process.as_ref().and_then(|process| process.end) else { return };
        let Some(process) = body.process.take() else { return };
        match end {
            End::Crashed => {
                lose(process, fabric);
                let restart = fabric.now().after(self.spec.store.restart_after);
                fabric.stopped(Some(restart));
            }
            End::Left => {
                fabric.observe(Observation::Left);
                fabric.stopped(None);
            }
        }
    }
}

/// Makes room for one more, and for a quarter more than there is: hosts are many, and a list that
/// doubles is a third empty.
pub(crate) fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(1.max(list.len() / 4));
    }
}

/// Names the memory of a thing.
fn near<T>(thing: &T, ask: &mut impl FnMut(*const u8, usize)) {
    ask(std::ptr::from_ref(thing).cast(), size_of::<T>());
}

/// Names the memory of a list's entries.
pub(crate) fn near_list<T>(list: &[T], ask: &mut impl FnMut(*const u8, usize)) {
    ask(list.as_ptr().cast(), size_of_val(list));
}

/// What a crash means for those who watch: every job of the process's users has failed.
fn lose(process: Process, fabric: &mut dyn Fabric) {
    let now: Moment = fabric.now();
    for reading in process.reading.map(|reading| reading.jobs).unwrap_or_default() {
        fabric.observe(reading.failed(FailureKind::Crashed, now));
    }
    fabric.observe(Observation::Crashed);
}
