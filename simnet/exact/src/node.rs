//! One node of a run: a host, the overlay under it, and its sessions.
//!
//! Owns: the way of an event from the overlay to the host and of the host's wishes back, and the
//! node's life: start, stop, crash.
//! Must not: decide anything that the host decides, or know the script.
//! How it runs: one task polls the overlay, one task carries each session; both borrow the node
//! for a moment. The host outlives its process, because it keeps what is durable.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use cocoon_overlay::{Event, Overlay, PeerStream, Refusal, RequestId};
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::wire::SessionMessage;
use futures::Stream as _;
use simnet_host::stimulus::DialFailure;
use simnet_host::{Host, HostId, HostSpec, SessionId, Stimulus};

use crate::carrier::Carrier;
use crate::session::{self, Heard, Outbox, handshake};
use crate::world::World;

/// A node that several tasks share.
pub(crate) type Shared = Rc<RefCell<Node>>;

/// A node, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    host: Host,
    pub(crate) process: Process,
    world: World,
}

/// What a node has besides its host. All but its name dies with the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: HostId,
    pub(crate) spec: Arc<HostSpec>,
    /// How often it was started or stopped; tells what is meant for an earlier life.
    pub(crate) life: u32,
    pub(crate) overlay: Option<Overlay>,
    /// Of the task that polls the overlay.
    waker: Option<Waker>,
    pub(crate) sessions: BTreeMap<SessionId, Outbox>,
    pub(crate) dialling: BTreeMap<RequestId, (SessionId, NodeId)>,
    /// Sessions accepted so far, in all lives.
    accepted: u64,
    /// The host has ended its own process; what is left of it goes in a moment.
    pub(crate) stopped: bool,
    me: Weak<RefCell<Node>>,
}

impl Process {
    /// The overlay has something to do that it does not know of yet.
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Node {
    /// A node that does not run.
    pub(crate) fn new(spec: Arc<HostSpec>, host: Host, world: World) -> Shared {
        Rc::new_cyclic(|me| {
            let process = Process {
                id: spec.id,
                spec,
                life: 0,
                overlay: None,
                waker: None,
                sessions: BTreeMap::new(),
                dialling: BTreeMap::new(),
                accepted: 0,
                stopped: false,
                me: Weak::clone(me),
            };
            RefCell::new(Self { host, process, world })
        })
    }

    /// Its host.
    pub(crate) const fn host(&self) -> &Host {
        &self.host
    }

    /// Whether its process runs.
    pub(crate) const fn is_running(&self) -> bool {
        self.process.overlay.is_some()
    }

    /// Its process starts over this overlay. The caller spawns [`pump`].
    pub(crate) fn start(&mut self, overlay: Overlay) {
        self.process.life = self.process.life.saturating_add(1);
        self.process.overlay = Some(overlay);
        self.happen(Stimulus::Start);
    }

    /// Its process is gone: what is left of it is dropped. True if it had run.
    pub(crate) fn stop(&mut self) -> bool {
        let process = &mut self.process;
        process.life = process.life.saturating_add(1);
        process.sessions.clear();
        process.dialling.clear();
        process.waker = None;
        process.stopped = false;
        process.overlay.take().is_some()
    }

    /// Its process dies in the middle of what it does.
    pub(crate) fn crash(&mut self) {
        if self.is_running() {
            let mut carrier = Carrier { process: &mut self.process, world: &self.world };
            self.host.crash(&mut carrier);
            self.stop();
        }
    }

    /// Something happens to its host. Nothing happens to one that does not run, or has just ended.
    pub(crate) fn happen(&mut self, stimulus: Stimulus) {
        if self.is_running() && !self.process.stopped {
            let mut carrier = Carrier { process: &mut self.process, world: &self.world };
            self.host.handle(stimulus, &mut carrier);
        }
    }

    /// As [`Self::happen`], unless it was meant for an earlier life.
    pub(crate) fn happen_in(&mut self, life: u32, stimulus: Stimulus) {
        if self.process.life == life {
            self.happen(stimulus);
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "addresses and notices do not concern hosts"
    )]
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Offer(offer) => self.happen(Stimulus::OfferHeard(offer)),
            Event::OfferGone(provider) => self.happen(Stimulus::OfferLost(provider)),
            Event::SessionOpened { request, stream, .. } => {
                if let Some((session, peer)) = self.process.dialling.remove(&request) {
                    self.carry(|me| dialled(me, session, peer, stream));
                }
            }
            Event::SessionFailed { request, error, .. } => {
                if let Some((session, peer)) = self.process.dialling.remove(&request) {
                    tracing::debug!(%peer, %error, "no session");
                    let failure = DialFailure::Unreachable;
                    self.happen(Stimulus::DialFailed { session, peer, failure });
                }
            }
            Event::InboundSession { peer, stream } => self.carry(|me| accepted(me, peer, stream)),
            _ => {}
        }
    }

    fn carry<F: Future<Output = ()> + 'static>(&self, work: impl FnOnce(Shared) -> F) {
        if let Some(me) = self.process.me.upgrade() {
            simnet_core::spawn(work(me));
        }
    }

    /// A session is over, and this host was not the one who ended it.
    fn session_over(&mut self, session: SessionId) {
        if self.process.sessions.remove(&session).is_some() {
            self.happen(Stimulus::SessionDown { session });
        }
    }

    /// Something came in a session; false when its peer broke the protocol.
    fn on_heard(&mut self, session: SessionId, heard: Heard) -> bool {
        match heard {
            Heard::End => {
                self.session_over(session);
                true
            }
            // What comes after this host hung up is for nobody.
            Heard::Message(_) if !self.process.sessions.contains_key(&session) => true,
            Heard::Message(bytes) => match SessionMessage::decode(&bytes) {
                Ok(message) => {
                    self.happen(Stimulus::Heard { session, message: Box::new(message) });
                    true
                }
                Err(error) => {
                    tracing::warn!(host = self.process.id.0, %error, "session closed");
                    self.session_over(session);
                    false
                }
            },
        }
    }
}

/// Polls a node's overlay for as long as the process lives.
pub(crate) async fn pump(node: Shared) {
    std::future::poll_fn(|cx| poll_overlay(&node, cx)).await;
}

fn poll_overlay(node: &Shared, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let mut node = node.borrow_mut();
        let Some(overlay) = &mut node.process.overlay else {
            return Poll::Ready(());
        };
        match Pin::new(overlay).poll_next(cx) {
            Poll::Ready(Some(event)) => node.on_event(event),
            Poll::Ready(None) => return Poll::Ready(()),
            Poll::Pending => {
                node.process.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
    }
}

/// The consumer's side of a session, from its stream to its end.
async fn dialled(node: Shared, session: SessionId, peer: NodeId, mut stream: PeerStream) {
    let checking = node.borrow().host.attestation();
    let evidence = match handshake::connect(&mut stream, checking).await {
        Ok(evidence) => evidence,
        Err(error) => {
            let failure = match Refusal::of(&error) {
                Some(Refusal::Busy) => DialFailure::Busy,
                Some(Refusal::Ended | Refusal::NotAVerdict) | None => DialFailure::Unreachable,
            };
            node.borrow_mut().happen(Stimulus::DialFailed { session, peer, failure });
            return;
        }
    };
    let outbox = Outbox::default();
    {
        let mut node = node.borrow_mut();
        node.process.sessions.insert(session, outbox.clone());
        node.happen(Stimulus::SessionUp { session, peer, evidence: Box::new(evidence) });
    }
    carry(&node, session, stream, &outbox).await;
}

/// The provider's side of a session, from its stream to its end.
async fn accepted(node: Shared, peer: NodeId, mut stream: PeerStream) {
    let (door, evidence, making) = {
        let node = node.borrow();
        (node.host.door(), node.host.evidence(), node.host.attestation())
    };
    // A node that does not provide, or has no room, drops the stream, as the real one does.
    let (Ok(()), Some(evidence)) = (door, evidence) else { return };
    if handshake::accept(&mut stream, evidence, making).await.is_err() {
        return;
    }
    let outbox = Outbox::default();
    let session = {
        let mut node = node.borrow_mut();
        let session = SessionId::accepted(node.process.accepted);
        node.process.accepted = node.process.accepted.saturating_add(1);
        node.process.sessions.insert(session, outbox.clone());
        node.happen(Stimulus::SessionAccepted { session, peer });
        session
    };
    carry(&node, session, stream, &outbox).await;
}

async fn carry(node: &Shared, session: SessionId, stream: PeerStream, outbox: &Outbox) {
    session::carry(stream, outbox, |heard| node.borrow_mut().on_heard(session, heard)).await;
    node.borrow_mut().session_over(session);
}
