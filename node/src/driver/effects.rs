//! How each effect is carried out.
//!
//! Owns: the way from an effect to the task or port that does it.
//! Must not: wait. What cannot be handed over at once is a peer that does not read, and loses its
//! session.

use cocoon_engine::EngineJob;
use cocoon_engine::PrefixScope;
use cocoon_overlay::Want;
use cocoon_protocol::Input;
use cocoon_protocol::identity::{JobId, NodeId};
use cocoon_protocol::output::{Effect, EngineCommand, JobNews};
use cocoon_protocol::receipt::{Salt, prompt_commitment};
use cocoon_protocol::units::Tokens;
use cocoon_protocol::wire::{JobRequest, SessionMessage};
use tokio::sync::mpsc;

use super::pump::{Order, ROUTE};
use super::serve::{RETRY_AFTER, Serve};
use super::{Driver, trust};
use crate::net::session::Role;

impl Driver {
    /// Does what the protocol asks for.
    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Look { model, minimum_tier } => {
                self.world.sessions.look(Want { model, minimum_tier });
            }
            Effect::Avoid { peer } => self.world.sessions.avoid(peer),
            Effect::Publish(offer) => self.world.sessions.publish(offer),
            Effect::OpenSession { peer, minimum_tier } => {
                self.world.sessions.open(peer, minimum_tier, self.handle.clone());
            }
            Effect::CloseSession { peer } => {
                if let Some(session) = self.accepted.get(&peer) {
                    session.cancel.cancel();
                }
            }
            Effect::Send { peer, message } => self.send(peer, message),
            Effect::SendJob { peer, job, offer_sequence, max_completion } => {
                self.send_job(peer, job, offer_sequence, max_completion);
            }
            Effect::Halt { job } => self.order(job, Order::Halt),
            Effect::Inform { job, news } => self.inform(job, news),
            Effect::Ledger(command) => {
                if let Some(answer) = self.world.ledger.submit(command) {
                    self.later(answer);
                }
            }
            Effect::TrustVault { peer, key } => {
                if let Some(session) = self.accepted.get(&peer) {
                    trust(session, key);
                }
            }
            Effect::Engine(command) => self.engine(command),
        }
    }

    fn send(&self, peer: NodeId, message: SessionMessage) {
        let table = if message.is_from_provider() { &self.accepted } else { &self.dialled };
        let Some(session) = table.get(&peer) else { return };
        if session.outbound.try_send(message).is_err() {
            tracing::warn!(%peer, "the peer does not read; its session is closed");
            session.cancel.cancel();
        }
    }

    fn send_job(&self, peer: NodeId, job: JobId, offer_sequence: u64, max_completion: Tokens) {
        let (Some(session), Some(consuming)) = (self.dialled.get(&peer), self.consuming.get(&job))
        else {
            return;
        };
        let Role::Consumer { routes, .. } = &session.role else { return };
        let (sender, route) = mpsc::channel(ROUTE);
        routes.insert(job, sender);
        let mut spec = consuming.spec.clone();
        spec.max_completion = max_completion;
        let mut commitment = None;
        if !consuming.answer.is_empty() {
            spec.prompt = spec.prompt.continued(&consuming.answer);
            let salt = Salt::from_bytes(consuming.salt);
            commitment = Some(prompt_commitment(&salt, &spec.prompt));
        }
        self.order(job, Order::Assign { provider: peer, route, prompt_commitment: commitment });
        let request = JobRequest { job, offer_sequence, spec, salt: consuming.salt };
        self.send(peer, SessionMessage::JobRequest(request));
    }

    fn order(&self, job: JobId, order: Order) {
        let Some(consuming) = self.consuming.get(&job) else { return };
        if consuming.orders.try_send(order).is_err() {
            // The bound covers every attempt's orders; a full queue means that the task is gone.
            tracing::debug!(%job, "nobody waits for this job");
        }
    }

    fn inform(&mut self, job: JobId, news: JobNews) {
        let over = !matches!(news, JobNews::Started { .. });
        self.order(job, Order::News(news));
        if over {
            self.world.budget.over(job);
            self.consuming.remove(&job);
            for session in self.dialled.values() {
                if let Role::Consumer { routes, .. } = &session.role {
                    routes.remove(job);
                }
            }
        }
    }

    fn engine(&mut self, command: EngineCommand) {
        match command {
            EngineCommand::Admit { peer, job } => {
                if let Err(refusal) = self.admit(peer, job) {
                    self.refuse_later(peer, job, refusal);
                }
                self.report_load();
            }
            EngineCommand::Grant { peer, job, total } => {
                if let Some(steering) = self.serving.get(&(peer, job)) {
                    steering.grant(total);
                }
            }
            EngineCommand::Cancel { peer, job, reason } => {
                if let Some(steering) = self.serving.get(&(peer, job)) {
                    steering.cancel(reason);
                }
            }
            EngineCommand::Forget { peer, job } => {
                self.world.bodies.take(peer, job);
                self.serving.remove(&(peer, job));
                self.report_load();
            }
        }
    }

    fn admit(
        &mut self,
        peer: NodeId,
        job: JobId,
    ) -> Result<(), cocoon_protocol::job::ProviderRefusal> {
        use cocoon_protocol::job::ProviderRefusal;
        let body = self.world.bodies.take(peer, job).ok_or(ProviderRefusal::EngineFailed)?;
        let session = self.accepted.get(&peer).ok_or(ProviderRefusal::Draining)?;
        let engine = self.world.engine.as_ref().ok_or(ProviderRefusal::UnknownModel)?;
        let scope = PrefixScope::of(peer);
        let job_for_engine = EngineJob { spec: body.spec, scope, now: self.world.clock.now() };
        let generation =
            engine.submit(job_for_engine).map_err(|error| error.to_refusal(RETRY_AFTER))?;
        let outbound = session.outbound.clone();
        let driver = self.handle.clone();
        let (serve, steering) = Serve::new((peer, job), generation, body.salt, outbound, driver);
        self.serving.insert((peer, job), steering);
        self.world.tasks.spawn_leaf(serve.run());
        Ok(())
    }

    /// The driver never waits for its own inbox: a task does.
    fn refuse_later(
        &self,
        peer: NodeId,
        job: JobId,
        refusal: cocoon_protocol::job::ProviderRefusal,
    ) {
        self.later(Input::EngineRefused { peer, job, refusal });
    }

    fn report_load(&self) {
        let Some(engine) = &self.world.engine else { return };
        let load = engine.load();
        let taken = load.running.saturating_add(load.waiting);
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        self.later(Input::Capacity { taken: count(taken), places: count(load.slots) });
    }

    fn later(&self, input: Input) {
        let driver = self.handle.clone();
        self.world.tasks.spawn_leaf(async move {
            driver.send(input).await;
        });
    }
}
