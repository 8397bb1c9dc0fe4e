//! A host's sessions: dialled ones with evidence judged, accepted ones with vouchers verified.
//!
//! Owns: the checks at the edge, so that the protocol only meets verified vouchers.
//! Must not: decide anything about jobs or money. A peer that breaks the protocol's grammar loses
//! the session.

use std::time::Duration;

use cocoon_protocol::Input;
use cocoon_protocol::attest::Tier;
use cocoon_protocol::channel::VaultPublicKey;
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::input::{ChannelView, Proved, SessionFailure};
use cocoon_protocol::limits;
use cocoon_protocol::wire::SessionMessage;
use simnet_scenario::Moment;

use super::driver::Shell;
use super::spec;
use crate::evidence::Evidence;
use crate::fabric::SessionId;
use crate::mutation::{Mutation, planted};
use crate::observation::{Observation, Queue};
use crate::stimulus::{Alarm, DialFailure, Piece};

/// Messages that wait to be written, as in the node. A peer that leaves more unread is not reading,
/// and its session is closed.
const OUTBOUND: u32 = 256;
/// A consumer that says nothing for this long makes room for another, as in the node.
const IDLE_TIMEOUT: Duration = Duration::from_secs(900);

/// A session that this host dialled.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) session: SessionId,
    pub(super) peer: NodeId,
    pub(super) since: Moment,
    pub(super) minimum_tier: Tier,
    pub(super) open: bool,
    /// What the provider really is; only the tables learn it.
    pub(super) genuine: Tier,
    pub(super) hostile: bool,
}

impl Dialled {
    /// The peer, if this is the session and it is usable.
    pub(super) fn peer_in(&self, session: SessionId) -> Option<NodeId> {
        (self.open && self.session == session).then_some(self.peer)
    }

    /// Whether it is usable, with this peer.
    pub(super) fn is_open_to(&self, peer: NodeId) -> bool {
        self.open && self.peer == peer
    }
}

/// Sessions that consumers opened: found by number for what comes in, by peer for what goes out.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    /// In the order of numbers.
    numbers: Vec<(SessionId, NodeId)>,
    /// In the order of peers, one for each.
    peers: Vec<Guest>,
}

/// A consumer with an open session.
#[derive(Debug)]
struct Guest {
    peer: NodeId,
    session: SessionId,
    /// The key that its vouchers verify against, once the ledger has shown it.
    vault: Option<VaultPublicKey>,
    heard: Moment,
}

impl Accepted {
    /// Names the memory that it points to; see [`crate::Host::approach`].
    pub(super) fn approach(&self, ask: &mut impl FnMut(*const u8, usize)) {
        super::near_list(&self.numbers, ask);
        super::near_list(&self.peers, ask);
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whose they are, whether their vaults were read, and when each was heard last; for displays.
    pub(super) fn guests(&self) -> impl Iterator<Item = (NodeId, bool, Moment)> {
        self.peers.iter().map(|guest| (guest.peer, guest.vault.is_some(), guest.heard))
    }

    fn at(&self, peer: NodeId) -> Result<usize, usize> {
        self.peers.binary_search_by_key(&peer, |guest| guest.peer)
    }

    fn guest(&mut self, peer: NodeId) -> Option<&mut Guest> {
        let at = self.at(peer).ok()?;
        self.peers.get_mut(at)
    }

    /// The session with this peer.
    pub(super) fn session(&self, peer: NodeId) -> Option<SessionId> {
        let at = self.at(peer).ok()?;
        self.peers.get(at).map(|guest| guest.session)
    }

    fn peer(&self, session: SessionId) -> Option<NodeId> {
        let at = self.numbers.binary_search_by_key(&session, |(number, _)| *number).ok()?;
        self.numbers.get(at).map(|(_, peer)| *peer)
    }

    /// Adds a session; the older one of the same peer comes back.
    fn insert(&mut self, session: SessionId, peer: NodeId, now: Moment) -> Option<SessionId> {
        let guest = Guest { peer, session, vault: None, heard: now };
        let older = match self.at(peer) {
            Ok(at) => self.peers.get_mut(at).map(|known| std::mem::replace(known, guest).session),
            Err(at) => {
                super::grow(&mut self.peers);
                self.peers.insert(at, guest);
                None
            }
        };
        if let Some(older) = older {
            self.forget_number(older);
        }
        if let Err(at) = self.numbers.binary_search_by_key(&session, |(number, _)| *number) {
            super::grow(&mut self.numbers);
            self.numbers.insert(at, (session, peer));
        }
        older
    }

    fn forget_number(&mut self, session: SessionId) {
        if let Ok(at) = self.numbers.binary_search_by_key(&session, |(number, _)| *number) {
            self.numbers.remove(at);
        }
    }

    /// Removes a session; its peer comes back.
    fn remove(&mut self, session: SessionId) -> Option<NodeId> {
        let peer = self.peer(session)?;
        self.forget_number(session);
        if let Ok(at) = self.at(peer) {
            self.peers.remove(at);
        }
        if self.peers.is_empty() {
            *self = Self::default();
        }
        Some(peer)
    }

    /// From now on vouchers of this peer verify against this key.
    pub(super) fn trust(&mut self, peer: NodeId, key: VaultPublicKey) {
        if let Some(guest) = self.guest(peer) {
            guest.vault = Some(key);
        }
    }
}

/// Why a session is closed from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Violation {
    /// A message of the wrong role.
    WrongRole,
    /// A voucher before the vault was named and read.
    NoVault,
    /// A voucher whose signature does not hold.
    BadVoucher,
    /// More jobs than are taken from one peer, or a job's id twice.
    TooManyJobs,
}

impl Shell<'_> {
    /// Opens a session.
    pub(super) fn dial(&mut self, peer: NodeId, minimum_tier: Tier) {
        *self.dials += 1;
        let session = SessionId::dialled(*self.dials);
        let since = self.now;
        let Some(reading) = &mut self.process.reading else { return };
        let (open, hostile) = (false, false);
        if reading.dialled.len() < 8 {
            reading.dialled.reserve_exact(1);
        }
        let genuine = Tier::Open;
        let dialled = Dialled { session, peer, since, minimum_tier, open, genuine, hostile };
        reading.dialled.push(dialled);
        self.fabric.dial(session, peer);
    }

    /// A dialled session is there: what the provider showed is judged.
    pub(super) fn session_up(&mut self, session: SessionId, peer: NodeId, evidence: Evidence) {
        let now = self.now;
        let Some(reading) = &mut self.process.reading else { return };
        let Some(at) = reading.dialled.iter().position(|it| it.session == session) else {
            // Nobody waits for it any more.
            self.fabric.hang_up(session);
            return;
        };
        let older = reading.dialled.iter().position(|it| it.is_open_to(peer));
        let Some(dialled) = reading.dialled.get_mut(at) else { return };
        let unjudged = planted(Mutation::PromptEarly);
        if let Err(reason) = judge(evidence, dialled.minimum_tier)
            && !unjudged
        {
            reading.dialled.swap_remove(at);
            self.fabric.hang_up(session);
            self.fabric.observe(Observation::SessionFailed { peer, refused: true });
            let failure = SessionFailure::Refused { reason: reason.to_owned() };
            self.input(Input::SessionFailed { peer, failure });
            return;
        }
        dialled.open = true;
        dialled.genuine = evidence.genuine;
        dialled.hostile = evidence.hostile;
        let after = now.since(dialled.since);
        if let Some(older) = older {
            // An older session of the same peer, which this one replaces, ends silently.
            let older = reading.dialled.swap_remove(older);
            self.fabric.hang_up(older.session);
        }
        self.fabric.observe(Observation::SessionOpened { peer, after });
        let proved = Proved {
            tier: evidence.tier,
            simulated: false,
            evidence_digest: evidence.digest,
            manifest: Some(evidence.manifest),
        };
        self.input(Input::SessionReady { peer, proved });
    }

    /// A dialled session did not come about.
    pub(super) fn dial_failed(&mut self, session: SessionId, peer: NodeId, failure: DialFailure) {
        let Some(reading) = &mut self.process.reading else { return };
        let Some(at) = reading.dialled.iter().position(|it| it.session == session) else { return };
        reading.dialled.swap_remove(at);
        self.fabric.observe(Observation::SessionFailed { peer, refused: false });
        let failure = match failure {
            DialFailure::Busy => SessionFailure::Busy,
            DialFailure::Unreachable => {
                SessionFailure::Unreachable { reason: "nobody answers".to_owned() }
            }
        };
        self.input(Input::SessionFailed { peer, failure });
    }

    /// A consumer opened a session.
    pub(super) fn session_accepted(&mut self, session: SessionId, peer: NodeId) {
        let now = self.now;
        let Some((serving, provider)) =
            self.process.serving.as_mut().zip(self.spec.provider.as_ref())
        else {
            self.fabric.hang_up(session);
            return;
        };
        if !serving.has_room() {
            self.fabric.hang_up(session);
            return;
        }
        let older = serving.accepted.insert(session, peer, now);
        let depth = serving.accepted.len();
        let set_alarm = !std::mem::replace(&mut serving.idle_alarm, true);
        if let Some(older) = older {
            self.fabric.hang_up(older);
        }
        if set_alarm {
            self.fabric.wake(now.after(IDLE_TIMEOUT), Alarm::Idle);
        }
        self.deepen(Queue::Sessions, depth, limits::SESSIONS);
        let proved = Proved {
            tier: provider.tier,
            simulated: false,
            evidence_digest: spec::evidence_digest(self.spec, provider),
            manifest: None,
        };
        self.input(Input::SessionAccepted { peer, proved });
    }

    /// A session is over; the peer or the network ended it.
    pub(super) fn session_down(&mut self, session: SessionId) {
        if let Some(peer) = self.forget_session(session) {
            let accepted = session.is_accepted();
            self.input(Input::SessionClosed { peer, accepted });
        }
    }

    /// Ends a session from this side.
    pub(super) fn close(&mut self, session: SessionId) {
        if let Some(peer) = self.forget_session(session) {
            self.fabric.hang_up(session);
            let accepted = session.is_accepted();
            self.later(Input::SessionClosed { peer, accepted });
        }
    }

    /// Ends the session that this consumer had opened.
    pub(super) fn close_accepted(&mut self, peer: NodeId) {
        let serving = self.process.serving.as_ref();
        if let Some(session) = serving.and_then(|serving| serving.accepted.session(peer)) {
            self.close(session);
        }
    }

    fn forget_session(&mut self, session: SessionId) -> Option<NodeId> {
        if session.is_accepted() {
            return self.process.serving.as_mut()?.accepted.remove(session);
        }
        let reading = self.process.reading.as_mut()?;
        let at = reading.dialled.iter().position(|it| it.session == session)?;
        Some(reading.dialled.swap_remove(at).peer)
    }

    /// Ends every session: what was sent arrives first, a last voucher is owed.
    pub(super) fn part(&mut self) {
        let dialled = self.process.reading.iter().flat_map(|reading| &reading.dialled);
        let dialled: Vec<_> = dialled.map(|it| it.session).collect();
        let accepted = self.process.serving.iter().flat_map(|it| &it.accepted.numbers);
        let accepted: Vec<_> = accepted.map(|(session, _)| *session).collect();
        for session in dialled.into_iter().chain(accepted) {
            self.fabric.hang_up(session);
        }
    }

    /// Closes accepted sessions in which nothing was heard for too long.
    pub(super) fn close_idle_sessions(&mut self) {
        let now = self.now;
        let Some(serving) = &mut self.process.serving else { return };
        let expiry = |guest: &Guest| guest.heard.after(IDLE_TIMEOUT);
        let idle: Vec<_> = serving
            .accepted
            .peers
            .iter()
            .filter(|guest| expiry(guest) <= now)
            .map(|guest| guest.session)
            .collect();
        let next = serving.accepted.peers.iter().map(expiry).filter(|at| *at > now).min();
        serving.idle_alarm = next.is_some();
        if let Some(next) = next {
            self.fabric.wake(next, Alarm::Idle);
        }
        for session in idle {
            self.session_over(session);
        }
    }

    /// Ends a session from this side, as its own task would: the protocol hears of it at once.
    fn session_over(&mut self, session: SessionId) {
        if let Some(peer) = self.forget_session(session) {
            self.fabric.hang_up(session);
            let accepted = session.is_accepted();
            self.input(Input::SessionClosed { peer, accepted });
        }
    }

    /// Sends a message to a peer, if there is a session for it.
    pub(super) fn send(&mut self, peer: NodeId, message: SessionMessage, padding: u32) {
        let session = if message.is_from_provider() {
            self.process.serving.as_ref().and_then(|serving| serving.accepted.session(peer))
        } else {
            let mut dialled = self.process.reading.iter().flat_map(|reading| &reading.dialled);
            dialled.find(|it| it.is_open_to(peer)).map(|it| it.session)
        };
        if let Some(session) = session {
            self.send_in(session, message, padding);
        }
    }

    /// Sends a message in a session.
    fn send_in(&mut self, session: SessionId, message: SessionMessage, padding: u32) {
        if self.reads(session) {
            self.fabric.send(session, message, padding);
        }
    }

    /// Whether the peer takes what is sent; one that leaves too much unread loses its session.
    pub(super) fn reads(&mut self, session: SessionId) -> bool {
        let reads = self.fabric.backlog(session) < OUTBOUND;
        if !reads {
            self.close(session);
        }
        reads
    }

    /// A piece of an answer came in a session.
    pub(super) fn piece(&mut self, session: SessionId, piece: Piece) {
        if session.is_accepted() {
            let Piece { job, completion } = piece;
            let text = String::new();
            self.heard(session, SessionMessage::JobChunk { job, text, completion });
        } else {
            self.chunk(session, "", piece);
        }
    }

    /// A message came in a session.
    pub(super) fn heard(&mut self, session: SessionId, message: SessionMessage) {
        let known = if session.is_accepted() {
            let serving = self.process.serving.as_mut();
            serving.and_then(|serving| {
                let peer = serving.accepted.peer(session)?;
                serving.accepted.guest(peer)?.heard = self.now;
                Some(peer)
            })
        } else {
            let mut dialled = self.process.reading.iter().flat_map(|reading| &reading.dialled);
            dialled.find_map(|it| it.peer_in(session))
        };
        let Some(peer) = known else { return };
        let understood = if session.is_accepted() {
            self.consumer_says(peer, message)
        } else {
            self.provider_says(session, peer, message)
        };
        match understood {
            Ok(Some(input)) => self.input_of(Some(session), input),
            Ok(None) => {}
            Err(violation) => {
                tracing::debug!(host = self.spec.id.0, ?violation, "a session is closed");
                self.session_over(session);
            }
        }
    }

    fn provider_says(
        &mut self,
        session: SessionId,
        peer: NodeId,
        message: SessionMessage,
    ) -> Result<Option<Input>, Violation> {
        Ok(Some(match message {
            SessionMessage::ChannelState { allocation, latest, owed, settled: _ } => {
                let latest = match latest {
                    Some(voucher) => {
                        let own = self.spec.vault_key().ok_or(Violation::WrongRole)?;
                        let key = own.public();
                        Some(voucher.verify(&key).map_err(|_| Violation::BadVoucher)?)
                    }
                    None => None,
                };
                Input::ChannelState { peer, view: ChannelView { allocation, latest, owed } }
            }
            SessionMessage::JobStarted { job, prompt } => Input::JobStarted { peer, job, prompt },
            SessionMessage::JobRefused { job, refusal } => Input::JobRefused { peer, job, refusal },
            SessionMessage::PaymentRefused { job, reason: _ } => {
                Input::PaymentRefused { peer, job }
            }
            SessionMessage::JobChunk { job, text, completion } => {
                self.chunk(session, &text, Piece { job, completion });
                return Ok(None);
            }
            SessionMessage::JobFinished { job, receipt } => {
                self.receipt(session, job, &receipt);
                return Ok(None);
            }
            SessionMessage::ChannelHello { .. }
            | SessionMessage::JobRequest(_)
            | SessionMessage::Payment { .. }
            | SessionMessage::JobCancel { .. } => return Err(Violation::WrongRole),
        }))
    }

    fn consumer_says(
        &mut self,
        peer: NodeId,
        message: SessionMessage,
    ) -> Result<Option<Input>, Violation> {
        Ok(Some(match message {
            SessionMessage::ChannelHello { vault, proof } => {
                Input::ChannelHello { peer, vault, proof }
            }
            SessionMessage::JobRequest(request) => {
                let request = self.body(peer, request).ok_or(Violation::TooManyJobs)?;
                Input::JobRequested { peer, request }
            }
            SessionMessage::Payment { voucher, total } => {
                let serving = self.process.serving.as_mut();
                let guest = serving.and_then(|serving| serving.accepted.guest(peer));
                let key = guest.and_then(|guest| guest.vault).ok_or(Violation::NoVault)?;
                let voucher = voucher.verify(&key).map_err(|_| Violation::BadVoucher)?;
                Input::Paid { peer, total, voucher }
            }
            SessionMessage::JobCancel { job } => Input::CancelRequested { peer, job },
            SessionMessage::ChannelState { .. }
            | SessionMessage::JobStarted { .. }
            | SessionMessage::JobRefused { .. }
            | SessionMessage::JobChunk { .. }
            | SessionMessage::JobFinished { .. }
            | SessionMessage::PaymentRefused { .. } => return Err(Violation::WrongRole),
        }))
    }
}

/// What verification finds in evidence: forged evidence never verifies, and true evidence earns
/// the tier that it is for.
const fn judge(evidence: Evidence, minimum: Tier) -> Result<(), &'static str> {
    if (evidence.genuine as u8) < (evidence.tier as u8) {
        return Err("the quote's signature does not lead to its maker's root");
    }
    if (evidence.tier as u8) < (minimum as u8) {
        return Err("the evidence does not earn the tier that is asked for");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 32])
    }

    #[test]
    fn both_ways_to_a_session_agree_whatever_comes_and_goes() {
        let mut accepted = Accepted::default();
        for (serial, byte) in [(1, 5), (2, 3), (4, 9), (3, 3)] {
            let session = SessionId::accepted(serial);
            let older = accepted.insert(session, peer(byte), Moment::START);
            assert_eq!(older, (serial == 3).then_some(SessionId::accepted(2)));
        }
        assert_eq!(accepted.len(), 3);
        for (serial, byte) in [(1, 5), (3, 3), (4, 9)] {
            assert_eq!(accepted.session(peer(byte)), Some(SessionId::accepted(serial)));
            assert_eq!(accepted.peer(SessionId::accepted(serial)), Some(peer(byte)));
        }
        assert_eq!(accepted.peer(SessionId::accepted(2)), None, "replaced");
        assert_eq!(accepted.remove(SessionId::accepted(2)), None);
        assert_eq!(accepted.remove(SessionId::accepted(3)), Some(peer(3)));
        assert_eq!(accepted.session(peer(3)), None);
        assert_eq!(accepted.remove(SessionId::accepted(1)), Some(peer(5)));
        assert_eq!(accepted.remove(SessionId::accepted(4)), Some(peer(9)));
        assert_eq!((accepted.len(), accepted.peers.len()), (0, 0));
    }

    #[test]
    fn a_key_is_trusted_in_its_session_alone() {
        let mut accepted = Accepted::default();
        accepted.insert(SessionId::accepted(1), peer(1), Moment::START);
        accepted.trust(peer(1), VaultPublicKey::from_bytes([9; 32]));
        assert!(accepted.guest(peer(1)).unwrap().vault.is_some());
        accepted.insert(SessionId::accepted(2), peer(1), Moment::START);
        assert!(accepted.guest(peer(1)).unwrap().vault.is_none(), "another session");
    }

    #[test]
    fn evidence_earns_its_tier_or_nothing() {
        let evidence = |tier, genuine| Evidence {
            tier,
            genuine,
            hostile: false,
            digest: [0; 32],
            manifest: [0; 32],
        };
        use Tier::{Attested, Confidential, Open};
        assert!(judge(evidence(Attested, Attested), Attested).is_ok());
        assert!(judge(evidence(Confidential, Confidential), Attested).is_ok());
        assert!(judge(evidence(Open, Open), Open).is_ok());
        assert!(judge(evidence(Open, Open), Attested).is_err());
        assert!(judge(evidence(Attested, Attested), Confidential).is_err());
        // Forged, also where less would have done.
        assert!(judge(evidence(Attested, Open), Open).is_err());
        assert!(judge(evidence(Confidential, Attested), Attested).is_err());
    }
}
