//! Sessions as the driver asks for them: opened to providers, accepted from consumers.
//!
//! Owns: the way from a stream to an attested session with running tasks, and its failures in the
//! protocol's words.
//! Must not: make the driver wait. Everything here starts a task and answers through the inbox.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cocoon_attest::channel::{
    AcceptOptions, AttestedChannel, ChannelError, ChannelIdentity, ChannelTasks, ConnectOptions,
    ConsumerDemand, FrameReceiver, FrameSender, accept, connect,
};
use cocoon_attest::{Appraiser, Clock};
use cocoon_overlay::{Refusal, Want};
use cocoon_protocol::Input;
use cocoon_protocol::attest::{NetworkId, Refusal as Unproved, Tier};
use cocoon_protocol::channel::VaultPublicKey;
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::input::{Proved, SessionFailure};
use cocoon_protocol::limits;
use cocoon_protocol::offer::SignedOffer;
use tokio::sync::{Semaphore, watch};

use super::session::{self, Bodies, Role, Routes, SessionHandle};
use super::swarm::{NetError, NetEvent, NetHandle, SessionStream};
use crate::driver::event::{DriverHandle, Event};
use crate::shutdown::Tasks;

/// What a consumer brings to a session.
#[derive(Clone, Debug)]
pub(crate) struct AsConsumer {
    /// The policy at work.
    pub(crate) appraiser: Arc<Appraiser>,
    /// The network that the evidence must be for.
    pub(crate) network: NetworkId,
    /// What is shown to a provider that demands attested consumers; none without a TEE.
    pub(crate) identity: Option<Arc<ChannelIdentity>>,
    /// The present.
    pub(crate) clock: Clock,
    /// Our own vouchers verify against this key.
    pub(crate) own_vault: VaultPublicKey,
}

/// What a provider brings to a session.
#[derive(Clone, Debug)]
pub(crate) struct AsProvider {
    /// Its certificate and evidence.
    pub(crate) identity: Arc<ChannelIdentity>,
    /// The tier that the evidence can earn. Each session is of the one that its consumer asked for.
    pub(crate) tier: Tier,
    /// Whether it is a simulated TEE's.
    pub(crate) simulated: bool,
    /// What consumers have to prove; none to serve anybody.
    pub(crate) demand: Option<ConsumerDemand>,
    /// Where the text of requests waits.
    pub(crate) bodies: Bodies,
    /// One permit for each session.
    pub(crate) room: Arc<Semaphore>,
}

/// The driver's door to the network.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    net: NetHandle,
    consumer: Option<AsConsumer>,
    provider: Option<AsProvider>,
    /// The offer that peers get: only the latest counts.
    offer: watch::Sender<Option<SignedOffer>>,
    channels: ChannelTasks,
    tasks: Tasks,
    serial: Arc<AtomicU64>,
}

impl Sessions {
    /// A door for the roles that the node has.
    pub(crate) fn new(
        net: NetHandle,
        consumer: Option<AsConsumer>,
        provider: Option<AsProvider>,
        tasks: &Tasks,
    ) -> Self {
        let (offer, published) = watch::channel(None);
        tasks.spawn_leaf(publish(net.clone(), published));
        let cancel = tasks.stopping().clone();
        let channels = ChannelTasks { cancel, ..ChannelTasks::default() };
        let (tasks, serial) = (tasks.clone(), Arc::default());
        Self { net, consumer, provider, offer, channels, tasks, serial }
    }

    /// Finds such providers and keeps them warm.
    pub(crate) fn look(&self, want: Want) {
        let net = self.net.clone();
        self.tasks.spawn_leaf(async move {
            if net.want(want).await.is_err() {
                tracing::debug!("the network is down; nobody looks for providers");
            }
        });
    }

    /// Lets a provider go that is not what its offer says, and finds others in its place.
    pub(crate) fn avoid(&self, peer: NodeId) {
        let net = self.net.clone();
        self.tasks.spawn_leaf(async move {
            if net.avoid(peer).await.is_err() {
                tracing::debug!("the network is down; nobody is let go");
            }
        });
    }

    /// Makes this the offer that peers get.
    pub(crate) fn publish(&self, offer: SignedOffer) {
        self.offer.send_replace(Some(offer));
    }

    /// Opens an attested session; the driver hears of it or of the failure.
    pub(crate) fn open(&self, peer: NodeId, minimum_tier: Tier, driver: DriverHandle) {
        let Some(consumer) = self.consumer.clone() else { return };
        let sessions = self.clone();
        self.tasks.spawn_leaf(async move {
            let opened = Box::pin(sessions.dial(peer, minimum_tier, &consumer));
            match opened.await {
                Err(failure) => {
                    tracing::info!(%peer, ?failure, "no session");
                    driver.send(Input::SessionFailed { peer, failure }).await;
                }
                Ok(channel) => {
                    let verdict = channel.verdict();
                    let image = verdict.image.as_deref().unwrap_or("unknown");
                    let (tier, simulated) = (verdict.tier, verdict.simulated);
                    let gpus = verdict.gpus.len();
                    tracing::info!(%peer, %tier, simulated, image, gpus, "session opened");
                    let proved = Proved {
                        tier: verdict.tier,
                        simulated: verdict.simulated,
                        evidence_digest: verdict.evidence_digest,
                        manifest: verdict.model_manifest,
                    };
                    let own_vault = consumer.own_vault;
                    let role = Role::Consumer { routes: Routes::default(), own_vault };
                    sessions.start(peer, role, proved, channel.split(), driver).await;
                }
            }
        });
    }

    async fn dial(
        &self,
        peer: NodeId,
        minimum_tier: Tier,
        consumer: &AsConsumer,
    ) -> Result<AttestedChannel, SessionFailure> {
        let mut stream = self.net.open_session(peer).await.map_err(|error| net_failure(&error))?;
        stream.get_mut().accepted().await.map_err(|refusal| match refusal {
            Refusal::Busy => SessionFailure::Busy,
            Refusal::Ended | Refusal::NotAVerdict => {
                SessionFailure::Unreachable { reason: refusal.to_string() }
            }
        })?;
        let options = ConnectOptions {
            dialled: peer,
            network: consumer.network,
            appraiser: Arc::clone(&consumer.appraiser),
            minimum_tier,
            capabilities: None,
            identity: consumer.identity.clone(),
            clock: consumer.clock.clone(),
            tasks: self.channels.clone(),
        };
        Box::pin(connect(stream, options)).await.map_err(|error| channel_failure(&error))
    }

    /// Accepts a session from a consumer, if there is room.
    fn accept(&self, peer: NodeId, stream: SessionStream, driver: DriverHandle) {
        let Some(provider) = self.provider.clone() else {
            tracing::debug!(%peer, "a session was asked for, but this node does not provide");
            return;
        };
        let Ok(room) = Arc::clone(&provider.room).try_acquire_owned() else {
            tracing::warn!(%peer, limit = limits::SESSIONS, "no room for another session");
            return;
        };
        let sessions = self.clone();
        self.tasks.spawn_leaf(async move {
            let demand = provider.demand.clone();
            let options = AcceptOptions { peer, demand, tasks: sessions.channels.clone() };
            let accepted = Box::pin(accept(stream, Arc::clone(&provider.identity), options));
            match accepted.await {
                Err(error) => tracing::info!(%peer, %error, "a session did not come about"),
                Ok(channel) => {
                    let proved = Proved {
                        tier: channel.tier(),
                        simulated: channel.simulated(),
                        evidence_digest: channel.evidence_digest(),
                        manifest: None,
                    };
                    let vault = Arc::new(Mutex::new(None));
                    let role = Role::Provider { bodies: provider.bodies, vault };
                    sessions.start(peer, role, proved, channel.split(), driver).await;
                }
            }
            drop(room);
        });
    }

    /// Tells the driver, then runs the session to its end.
    async fn start(
        &self,
        peer: NodeId,
        role: Role,
        proved: Proved,
        frames: (FrameSender, FrameReceiver),
        driver: DriverHandle,
    ) {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let cancel = self.tasks.stopping().child_token();
        let (session, outbound) = SessionHandle::new(peer, serial, role, cancel);
        let opened = Event::SessionOpened { session: session.clone(), proved };
        if driver.send(opened).await {
            Box::pin(session::run(session, frames, outbound, driver)).await;
        }
    }

    /// Takes the network's events until it ends.
    pub(crate) async fn run(
        self,
        mut events: tokio::sync::mpsc::Receiver<NetEvent>,
        driver: DriverHandle,
    ) {
        while let Some(event) = events.recv().await {
            match event {
                NetEvent::Offer(offer) => {
                    driver.send(Input::Offer(offer)).await;
                }
                NetEvent::OfferGone(provider) => {
                    driver.send(Input::OfferGone(provider)).await;
                }
                NetEvent::InboundSession { peer, stream } => {
                    self.accept(peer, stream, driver.clone());
                }
                NetEvent::Listening(address) => tracing::info!(%address, "listening"),
                NetEvent::PeerConnected(peer) => tracing::debug!(%peer, "peer connected"),
                NetEvent::PeerDisconnected(peer) => tracing::debug!(%peer, "peer gone"),
                NetEvent::Notice(_, _) => {}
            }
        }
    }
}

async fn publish(net: NetHandle, mut offers: watch::Receiver<Option<SignedOffer>>) {
    while offers.changed().await.is_ok() {
        let offer = offers.borrow_and_update().clone();
        if let Some(offer) = offer
            && net.publish_offer(offer).await.is_err()
        {
            return;
        }
    }
}

fn net_failure(error: &NetError) -> SessionFailure {
    let reason = match error {
        NetError::Open(error) => error.to_string(),
        NetError::Stopped | NetError::Listen(_) => error.to_string(),
    };
    SessionFailure::Unreachable { reason }
}

fn channel_failure(error: &ChannelError) -> SessionFailure {
    let reason = |text: &dyn std::fmt::Display| text.to_string();
    match error {
        // It has shown nothing that is wrong, only nothing: it may be busy, or its TEE or GPUs out of
        // order. Whoever is refused is taken for a liar, and forgotten.
        ChannelError::Refused(Unproved::TimedOut | Unproved::Unable) => {
            SessionFailure::Unreachable { reason: reason(error) }
        }
        ChannelError::Refused(refusal) => SessionFailure::Refused { reason: reason(refusal) },
        ChannelError::AttestationDemanded | ChannelError::RefusedByProvider => {
            SessionFailure::Refused { reason: reason(error) }
        }
        ChannelError::ConsumerRefused(_)
        | ChannelError::Misbehaved(_)
        | ChannelError::Tls(_)
        | ChannelError::Lost(_)
        | ChannelError::TimedOut
        | ChannelError::Quote(_)
        | ChannelError::Certificate
        | ChannelError::FrameTooLong
        | ChannelError::Closed => SessionFailure::Unreachable { reason: reason(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_that_shows_nothing_wrong_is_not_taken_for_a_liar() {
        for silent in [Unproved::TimedOut, Unproved::Unable] {
            let failure = channel_failure(&ChannelError::Refused(silent));
            assert!(matches!(failure, SessionFailure::Unreachable { .. }), "{failure:?}");
        }
        let failure = channel_failure(&ChannelError::Refused(Unproved::NotFresh));
        assert!(matches!(failure, SessionFailure::Refused { .. }), "{failure:?}");
    }
}
