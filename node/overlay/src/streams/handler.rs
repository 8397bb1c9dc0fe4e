//! The part of the stream behaviour that lives in each connection.
//!
//! Owns: negotiating our protocols, admitting inbound streams, and sending their verdicts.
//! Must not: know other peers; quotas come in as a shared counter.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::task::{Context, Poll, Waker};

use futures::future::{self, BoxFuture, Either};
use futures::stream::{FuturesUnordered, StreamExt as _};
use futures::{AsyncWriteExt as _, FutureExt as _};
use futures_timer::Delay;
use libp2p::core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
};
use libp2p::{Stream, StreamProtocol};

use super::peer_stream::{ACCEPTED, BUSY, PeerStream};
use super::quota::{PeerQuota, Permit};
use super::{OpenError, Protocol, RequestId};
use crate::limits;

/// What the behaviour asks of a connection.
#[derive(Debug)]
pub(crate) struct Open {
    pub(super) request: RequestId,
    pub(super) protocol: Protocol,
}

/// What a connection reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// A stream of the peer was admitted.
    Inbound(Protocol, PeerStream),
    /// A stream of the peer was refused.
    Refused(Protocol),
    /// A stream that we asked for is open.
    Opened(RequestId, PeerStream),
    /// A stream that we asked for could not be opened.
    Failed(RequestId, OpenError),
}

/// Offers all our protocols to the peer and says which one it chose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnyProtocol;

impl UpgradeInfo for AnyProtocol {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; Protocol::ALL.len()];

    fn protocol_info(&self) -> Self::InfoIter {
        Protocol::ALL.map(Protocol::name)
    }
}

impl InboundUpgrade<Stream> for AnyProtocol {
    type Output = (Stream, Option<Protocol>);
    type Error = std::convert::Infallible;
    type Future = future::Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, name: Self::Info) -> Self::Future {
        future::ready(Ok((stream, Protocol::from_name(&name))))
    }
}

/// One connection's streams.
pub(crate) struct Handler {
    quota: PeerQuota,
    to_open: VecDeque<Open>,
    reports: VecDeque<Report>,
    verdicts: FuturesUnordered<BoxFuture<'static, Option<(Protocol, PeerStream)>>>,
    waker: Option<Waker>,
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("to_open", &self.to_open.len())
            .field("verdicts", &self.verdicts.len())
            .finish_non_exhaustive()
    }
}

impl Handler {
    pub(super) fn new(quota: PeerQuota) -> Self {
        Self {
            quota,
            to_open: VecDeque::new(),
            reports: VecDeque::new(),
            verdicts: FuturesUnordered::new(),
            waker: None,
        }
    }

    fn inbound(&mut self, stream: Stream, protocol: Protocol) {
        let permit = self.quota.admit(protocol);
        if permit.is_none() {
            self.reports.push_back(Report::Refused(protocol));
        }
        // A peer that opens streams faster than it reads verdicts is answered by a reset.
        if self.verdicts.len() < limits::VERDICTS_IN_FLIGHT {
            self.verdicts.push(within(verdict(stream, protocol, permit)).boxed());
        }
    }
}

async fn verdict(
    mut stream: Stream,
    protocol: Protocol,
    permit: Option<Permit>,
) -> Option<(Protocol, PeerStream)> {
    let byte = if permit.is_some() { ACCEPTED } else { BUSY };
    stream.write_all(&[byte]).await.ok()?;
    stream.flush().await.ok()?;
    if let Some(permit) = permit {
        return Some((protocol, PeerStream::inbound(stream, permit)));
    }
    stream.close().await.ok()?;
    None
}

async fn within<T>(work: impl Future<Output = Option<T>> + Send) -> Option<T> {
    let work = std::pin::pin!(work);
    match future::select(work, Delay::new(limits::VERDICT_TIMEOUT)).await {
        Either::Left((done, _)) => done,
        Either::Right(_) => None,
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Report;
    type InboundProtocol = AnyProtocol;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Open;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(AnyProtocol, ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Open, Report>> {
        if let Some(report) = self.reports.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
        }
        while let Poll::Ready(Some(done)) = self.verdicts.poll_next_unpin(cx) {
            if let Some((protocol, stream)) = done {
                let report = Report::Inbound(protocol, stream);
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
            }
        }
        if let Some(open) = self.to_open.pop_front() {
            let upgrade = ReadyUpgrade::new(open.protocol.name());
            let protocol = SubstreamProtocol::new(upgrade, open).with_timeout(limits::OPEN_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, open: Open) {
        // The behaviour keeps at most OPEN_REQUESTS_PER_PEER under way, which bounds this queue.
        self.to_open.push_back(open);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "libp2p's list of events is open")]
    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Open>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, Some(protocol)),
                ..
            }) => self.inbound(stream, protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info,
            }) => {
                let permit = self.quota.count_opened(info.protocol);
                let stream = PeerStream::outbound(stream, permit);
                self.reports.push_back(Report::Opened(info.request, stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => OpenError::TimedOut,
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Io(_) => OpenError::ConnectionLost,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                self.reports.push_back(Report::Failed(info.request, error));
            }
            // Address and protocol changes concern other behaviours; a failed inbound
            // negotiation leaves nothing behind.
            _ => {}
        }
    }
}
