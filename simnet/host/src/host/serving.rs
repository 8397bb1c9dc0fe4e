//! A provider's edge: the requests that wait, the engine, and each job's text on its way out.
//!
//! Owns: what the node's serve task does: coalescing, the completion's commitment, the order "text,
//! then count, then end"; and how much of what went out is not paid.
//! Must not: decide about a job; the protocol grants, the engine writes, this forwards.

use cocoon_protocol::Input;
use cocoon_protocol::identity::{JobId, ModelHash, NodeId};
use cocoon_protocol::input::RequestedJob;
use cocoon_protocol::job::{FinishReason, ProviderRefusal, SpecError, Usage, meter};
use cocoon_protocol::limits;
use cocoon_protocol::output::EngineCommand;
use cocoon_protocol::receipt::{Salt, prompt_commitment, sampling_digest};
use cocoon_protocol::units::{NanoTon, Prices, Tokens};
use cocoon_protocol::wire::JobRequest;

use super::driver::Shell;
use super::process::AlarmClock;
use super::reading::{BYTES_PER_TOKEN, Text, read_prompt};
use super::session::Accepted;
use super::spare;
use super::spec::{self, ProviderSpec};
use super::{Coming, near_list};
use crate::engine::{Ask, Engine, Generated, JobKey};
use crate::fabric::SessionId;
use crate::mutation;
use crate::observation::{Observation, Queue};
use crate::stimulus::{Alarm, Piece};

/// What a provider's process has beside the protocol's state.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) accepted: Accepted,
    pub(super) engine: Engine,
    alarm: AlarmClock,
    bodies: Vec<Body>,
    jobs: Vec<Job>,
    /// What the protocol was last told of the engine's load.
    load: (u32, u32),
    /// Whether an alarm for idle sessions is set.
    pub(super) idle_alarm: bool,
}

/// A request whose text waits for the protocol's word.
#[derive(Debug)]
struct Body {
    key: JobKey,
    model: ModelHash,
    text: Option<(Tokens, Tokens)>,
    limit: Tokens,
    salt: [u8; 32],
    check: Result<(), SpecError>,
}

/// A job that the engine has taken. In the order of its declaration: what a piece of text reads comes
/// first.
#[derive(Debug)]
#[repr(C)]
struct Job {
    key: JobKey,
    session: SessionId,
    sent: Tokens,
    /// Tokens of completion that durable vouchers cover.
    covered: Tokens,
    text: Text,
    /// What a step costs.
    step: NanoTon,
    /// What of it is not paid.
    unpaid: NanoTon,
    /// The consumer's account, as of its last payment or ended job.
    account: Account,
    prices: Prices,
    prompt: Tokens,
    salt: [u8; 32],
}

/// What a consumer owes from ended jobs, and what it has been credited.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    owed: NanoTon,
    credited: NanoTon,
}

impl Job {
    /// What so many tokens cost here.
    fn cost(&self, tokens: Tokens) -> NanoTon {
        self.prices.cost(Tokens::ZERO, tokens).unwrap_or(NanoTon::MAX)
    }

    fn count(&mut self) {
        self.unpaid = self.cost(self.sent.saturating_sub(self.covered));
    }
}

impl Serving {
    pub(super) fn new(spec: &ProviderSpec) -> Self {
        Self {
            accepted: Accepted::default(),
            engine: Engine::new(spec::engine_spec(spec)),
            alarm: AlarmClock::default(),
            bodies: Vec::new(),
            jobs: Vec::new(),
            load: (0, spec.places),
            idle_alarm: false,
        }
    }

    /// Names the memory that it points to; see [`crate::Host::approach`].
    pub(super) fn approach(&self, coming: Coming, ask: &mut impl FnMut(*const u8, usize)) {
        near_list(&self.jobs, ask);
        self.engine.approach(ask);
        if coming == Coming::Other {
            self.accepted.approach(ask);
        }
    }

    /// The sessions that running jobs are served in.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.jobs.iter().map(|job| job.session)
    }

    /// Whether another consumer may open a session.
    pub(super) fn has_room(&self) -> bool {
        self.accepted.len() < limits::SESSIONS
    }

    /// Requests whose text waits for the protocol's word; for displays.
    pub(super) fn requests(&self) -> usize {
        self.bodies.len()
    }

    /// What of a job went out and is not paid; for displays.
    pub(super) fn unpaid(&self, key: JobKey) -> NanoTon {
        self.jobs.iter().find(|job| job.key == key).map_or(NanoTon::ZERO, |job| job.unpaid)
    }

    fn take_body(&mut self, key: JobKey) -> Option<Body> {
        let at = self.bodies.iter().position(|body| body.key == key)?;
        let body = self.bodies.swap_remove(at);
        if self.bodies.is_empty() {
            self.bodies = Vec::new();
        }
        Some(body)
    }

    fn job(&mut self, key: JobKey) -> Option<&mut Job> {
        self.jobs.iter_mut().find(|job| job.key == key)
    }

    fn take_job(&mut self, key: JobKey) -> Option<Job> {
        let at = self.jobs.iter().position(|job| job.key == key)?;
        let job = self.jobs.remove(at);
        if self.jobs.is_empty() {
            self.jobs = Vec::new();
        }
        Some(job)
    }
}

impl Shell<'_> {
    /// Keeps a request's text at the edge. `None` when this peer has too many waiting, or uses the
    /// id already.
    pub(super) fn body(&mut self, peer: NodeId, request: JobRequest) -> Option<RequestedJob> {
        let serving = self.process.serving.as_mut()?;
        let JobRequest { job, offer_sequence, spec, salt } = request;
        let waiting = serving.bodies.iter().filter(|body| body.key.0 == peer).count();
        if waiting >= limits::JOBS_PER_PEER
            || serving.bodies.iter().any(|body| body.key == (peer, job))
        {
            return None;
        }
        let key = Salt::from_bytes(salt);
        let requested = RequestedJob {
            job,
            model: spec.model,
            offer_sequence,
            max_completion: spec.max_completion,
            prompt_commitment: prompt_commitment(&key, &spec.prompt),
            sampling_digest: sampling_digest(&spec.sampling, &spec.stop),
            salt,
        };
        super::grow(&mut serving.bodies);
        serving.bodies.push(Body {
            key: (peer, job),
            model: spec.model,
            text: read_prompt(&spec.prompt),
            limit: spec.max_completion,
            salt,
            check: spec.check(),
        });
        let running = serving.jobs.iter().filter(|job| job.key.0 == peer).count();
        self.deepen(Queue::JobsOfPeer, waiting + 1 + running, limits::JOBS_PER_PEER);
        Some(requested)
    }

    /// Does what the protocol asks of the engine.
    pub(super) fn engine(&mut self, command: EngineCommand) {
        let now = self.now;
        match command {
            EngineCommand::Admit { peer, job } => {
                if let Err(refusal) = self.admit(peer, job) {
                    self.later(Input::EngineRefused { peer, job, refusal });
                }
                self.report_load();
            }
            EngineCommand::Grant { peer, job, total } => {
                if let Some(serving) = &mut self.process.serving {
                    serving.engine.grant((peer, job), total, now);
                }
            }
            EngineCommand::Cancel { peer, job, reason } => self.stop((peer, job), reason),
            EngineCommand::Forget { peer, job } => {
                let Some(serving) = &mut self.process.serving else { return };
                serving.take_body((peer, job));
                serving.take_job((peer, job));
                if let Some(engine) = serving.engine.forget((peer, job), now) {
                    self.fabric.observe(Observation::Worked { engine });
                }
                self.look_up_account(peer);
                self.report_load();
            }
        }
        self.arm_engine();
    }

    fn admit(&mut self, peer: NodeId, job: JobId) -> Result<(), ProviderRefusal> {
        let key = (peer, job);
        let terms = self.process.node.provider().and_then(|it| it.terms(peer, job));
        let body = self.process.serving.as_mut().and_then(|serving| serving.take_body(key));
        let (Some(prices), Some(serving), Some(body)) =
            (terms, self.process.serving.as_mut(), body)
        else {
            return Err(ProviderRefusal::EngineFailed);
        };
        let Body { model, text, limit, salt, check, .. } = body;
        let session = serving.accepted.session(peer).ok_or(ProviderRefusal::Draining)?;
        let bad = |reason: &str| ProviderRefusal::BadRequest { reason: reason.to_owned() };
        check.map_err(|error| bad(&error.to_string()))?;
        let (prompt, natural) = text.ok_or_else(|| bad("the prompt is not one of a simulation"))?;
        let models = self.spec.provider.iter().flat_map(|provider| &provider.models);
        let mut served = models.filter(|served| served.model == model);
        let context = served.next().ok_or(ProviderRefusal::UnknownModel)?.context;
        let room = context.saturating_sub(prompt);
        if room == Tokens::ZERO {
            return Err(ProviderRefusal::ContextExceeded { prompt, context });
        }
        let limit = limit.min(room);
        serving.engine.admit(key, Ask { prompt, natural, limit })?;
        let (sent, covered, text) = (Tokens::ZERO, Tokens::ZERO, Text::EMPTY);
        let mut admitted = Job {
            key,
            session,
            salt,
            prompt,
            prices,
            sent,
            text,
            covered,
            step: NanoTon::ZERO,
            unpaid: NanoTon::ZERO,
            account: Account::default(),
        };
        admitted.step = admitted.cost(limits::CREDIT_STEP);
        super::grow(&mut serving.jobs);
        serving.jobs.push(admitted);
        let (taken, _) = serving.engine.load();
        let (depth, bound) = (taken, serving.engine.bound());
        self.deepen(
            Queue::Engine,
            usize::try_from(depth).unwrap_or(usize::MAX),
            usize::try_from(bound).unwrap_or(usize::MAX),
        );
        self.look_up_account(peer);
        self.later(Input::EngineStarted { peer, job, prompt });
        Ok(())
    }

    /// The engine stops a job; its receipt will say why.
    fn stop(&mut self, key: JobKey, reason: FinishReason) {
        let now = self.now;
        // What is written by now goes out first.
        self.pump_engine();
        let Some(serving) = &mut self.process.serving else { return };
        if let Some((usage, worked)) = serving.engine.cancel(key, now) {
            self.over(key, reason, usage, worked);
        }
    }

    /// The engine may have written something.
    pub(super) fn engine_alarm(&mut self, generation: u32) {
        let Some(serving) = &mut self.process.serving else { return };
        if serving.alarm.rings(generation) {
            self.pump_engine();
            self.arm_engine();
        }
    }

    /// Sends what the engine has written.
    fn pump_engine(&mut self) {
        let now = self.now;
        let Some(serving) = &mut self.process.serving else { return };
        let mut said = spare::generated();
        serving.engine.poll(now, &mut said);
        said = mutation::shuffled(said);
        for generated in said.drain(..) {
            match generated {
                Generated::Text { key, completion } => self.text(key, completion),
                Generated::Finished { key, reason, usage, worked } => {
                    self.over(key, reason, usage, worked);
                }
            }
        }
        spare::said(said);
    }

    fn text(&mut self, key: JobKey, completion: Tokens) {
        let (peer, job) = key;
        let Some(found) = self.process.serving.as_mut().and_then(|it| it.job(key)) else { return };
        let fresh = completion.saturating_sub(found.sent);
        found.text.update("", completion);
        found.sent = completion;
        found.count();
        let (session, unpaid) = (found.session, completion.saturating_sub(found.covered));
        let (value, step, Account { owed, credited }) = (found.unpaid, found.step, found.account);
        let padding = fresh.get().saturating_mul(BYTES_PER_TOKEN);
        if self.reads(session) {
            self.fabric.send_piece(session, Piece { job, completion }, padding);
        }
        let jobs = self.process.serving.iter().flat_map(|serving| &serving.jobs);
        let theirs = jobs.filter(|job| job.key.0 == peer).map(|job| job.unpaid);
        let peer_owes = theirs.fold(owed, NanoTon::saturating_add);
        let exposed = Observation::Exposed { job, unpaid, value, peer_owes, step, credited };
        self.fabric.observe(exposed);
        self.generated(peer, Piece { job, completion });
    }

    /// Looks up a consumer's account for its jobs: with each payment and each job that ends, and
    /// not with each token.
    fn look_up_account(&mut self, peer: NodeId) {
        let payee = self.process.node.provider().and_then(|provider| provider.payee_of(peer));
        let account = payee.map(|it| Account { owed: it.owed(), credited: it.credited() });
        let jobs = self.process.serving.iter_mut().flat_map(|serving| &mut serving.jobs);
        for job in jobs.filter(|job| job.key.0 == peer) {
            job.account = account.unwrap_or_default();
        }
    }

    fn over(
        &mut self,
        key: JobKey,
        reason: FinishReason,
        usage: Usage,
        worked: std::time::Duration,
    ) {
        self.fabric.observe(Observation::Worked { engine: worked });
        let sent = self.process.serving.as_mut().and_then(|it| it.job(key)).map(|job| job.sent);
        // Whatever is counted is known to the consumer before the end.
        if sent.is_some_and(|sent| usage.completion > sent) {
            self.text(key, usage.completion);
        }
        let Some(found) = self.process.serving.as_mut().and_then(|it| it.job(key)) else { return };
        let completion_commitment = found.text.commitment(found.salt);
        let (peer, job) = key;
        self.later(Input::EngineFinished { peer, job, reason, usage, completion_commitment });
    }

    /// A payment for a job is durable: more of it is covered.
    pub(super) fn credited(&mut self, peer: NodeId, claim: Option<(JobId, NanoTon)>) {
        let Some(serving) = &mut self.process.serving else { return };
        if let Some((job, total)) = claim
            && let Some(found) = serving.job((peer, job))
            && let Some(covered) = meter::covered(found.prices, found.prompt, total)
        {
            found.covered = found.covered.max(covered);
            found.count();
        }
        self.look_up_account(peer);
    }

    fn report_load(&mut self) {
        let Some(serving) = &mut self.process.serving else { return };
        let load = serving.engine.load();
        if std::mem::replace(&mut serving.load, load) != load {
            let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
            let (taken, places) = (count(load.0), count(load.1));
            self.later(Input::Capacity { taken, places });
        }
    }

    fn arm_engine(&mut self) {
        let Some(serving) = &mut self.process.serving else { return };
        if let Some(at) = serving.engine.next()
            && let Some(generation) = serving.alarm.need(at.max(self.now))
        {
            self.fabric.wake(at.max(self.now), Alarm::Engine(generation));
        }
    }
}
