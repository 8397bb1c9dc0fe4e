//! A provider accepts a channel: handshake, one challenge answered; only then frames.
//!
//! Owns: the order of these, and their deadlines; and the demand that a consumer be attested, which
//! is met before the first frame too.
//! Must not: read an application byte before.

use std::sync::Arc;

use cocoon_protocol::attest::{AttestRequest, NetworkId, Refusal, SessionRole, Tier, Verdict};
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::limits;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::Clock;
use crate::appraiser::Appraiser;
use crate::certificate::SessionCertificate;
use crate::channel::challenge::Challenger;
use crate::channel::connect::first_challenge;
use crate::channel::error::{ChannelError, Misbehaviour, from_io};
use crate::channel::frame::{FrameReader, Kind, write_frame};
use crate::channel::identity::{Answered, ChannelIdentity};
use crate::channel::pump::{self, Answering, Challenging, Side};
use crate::channel::tls::SharedTls;
use crate::channel::{AcceptedChannel, ChannelTasks};

/// What a provider needs to accept a session.
#[derive(Clone, Debug)]
pub struct AcceptOptions {
    /// The consumer, as the layer below authenticated it.
    pub peer: NodeId,
    /// What the consumer has to prove; `None` to serve anybody.
    pub demand: Option<ConsumerDemand>,
    /// Who owns the channel's tasks.
    pub tasks: ChannelTasks,
}

/// A provider's demand that consumers be attested.
#[derive(Clone, Debug)]
pub struct ConsumerDemand {
    /// The policy for consumers at work. Its minimum tier holds, and `attested` at least.
    pub appraiser: Arc<Appraiser>,
    /// The network.
    pub network: NetworkId,
    /// The present.
    pub clock: Clock,
}

/// Accepts an attested channel over `stream`.
///
/// # Errors
/// [`ChannelError::Misbehaved`] for a consumer that sends anything before its challenge,
/// [`ChannelError::ConsumerRefused`] for one that fails the demand.
pub async fn accept<S>(
    stream: S,
    identity: Arc<ChannelIdentity>,
    options: AcceptOptions,
) -> Result<AcceptedChannel, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let AcceptOptions { peer, demand, tasks } = options;
    let issued = Box::pin(identity.current_in_time()).await?;
    let deadline = limits::ATTEST_TIMEOUT.to_duration();
    let config = if demand.is_some() { &issued.demanding } else { &issued.config };
    // Boxed: a handshake's state is large, and callers keep many of these futures.
    let handshake = Box::pin(TlsAcceptor::from(Arc::clone(config)).accept(stream));
    let tls = timeout(deadline, handshake)
        .await
        .map_err(|_| ChannelError::TimedOut)?
        .map_err(|error| from_io(&error))?;
    let tls = SharedTls::new(tls.into());
    tls.check_protocol()?;
    let challenger = match &demand {
        Some(demand) => match demand.challenger(&tls, peer) {
            Ok(challenger) => Some(challenger),
            Err(refusal) => return Err(refuse(&tls, ChannelError::ConsumerRefused(refusal)).await),
        },
        None => None,
    };
    let mut reader = FrameReader::new(tls.clone());
    let answering = Answering { identity, issued, role: SessionRole::Server, peer };
    let first = Box::pin(answer_first_frame(&tls, &mut reader, &answering));
    let answered = timeout(deadline, first).await.map_err(|_| ChannelError::TimedOut)??;
    let challenging = match challenger {
        Some(challenger) => Some(judge_consumer(&tls, &mut reader, challenger).await?),
        None => None,
    };
    let verdict = challenging.as_ref().map(|challenging| Verdict::clone(&challenging.verdict));
    match &verdict {
        None => tracing::info!(
            consumer = %peer,
            tier = %answered.tier,
            simulated = answered.simulated,
            "accepted a session"
        ),
        Some(verdict) => tracing::info!(
            consumer = %peer,
            tier = %answered.tier,
            theirs = %verdict.tier,
            simulated = verdict.simulated || answered.simulated,
            image = verdict.image.as_deref().unwrap_or_default(),
            "accepted a session with an attested consumer"
        ),
    }
    let side = Side { challenging, answering: Some(answering) };
    let (sender, receiver) = pump::start(tls, reader, side, &tasks);
    Ok(AcceptedChannel {
        peer,
        kind: answered.kind,
        tier: answered.tier,
        simulated: answered.simulated,
        evidence_digest: answered.evidence_digest,
        verdict,
        sender,
        receiver,
    })
}

impl ConsumerDemand {
    /// What the consumer's evidence is held against, from the certificate that it showed.
    fn challenger<S>(&self, tls: &SharedTls<S>, peer: NodeId) -> Result<Arc<Challenger>, Refusal> {
        let shown = tls.certificate().ok_or(Refusal::EvidenceMissing)?;
        let certificate = SessionCertificate::read(&shown, self.clock.now())?;
        let presented = certificate.record.peer;
        if presented != peer {
            return Err(Refusal::WrongPeer { dialled: peer, presented });
        }
        Ok(Arc::new(Challenger {
            peer,
            role: SessionRole::Client,
            network: self.network,
            want: self.appraiser.policy().demanded(Tier::Attested),
            appraiser: Arc::clone(&self.appraiser),
            capabilities: None,
            clock: self.clock.clone(),
            certificate,
        }))
    }
}

/// Challenges the consumer, and tells it the outcome.
async fn judge_consumer<S>(
    tls: &SharedTls<S>,
    reader: &mut FrameReader<SharedTls<S>>,
    challenger: Arc<Challenger>,
) -> Result<Challenging, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = Box::pin(first_challenge(tls, reader, &challenger));
    match first.await {
        Ok(verdict) => {
            say(tls, Kind::AttestAccepted).await?;
            Ok(Challenging { challenger, verdict: Box::new(verdict) })
        }
        Err(error) => Err(refuse(tls, error).await),
    }
}

/// Tells the consumer that it was refused, for a moment, and hands `error` back.
async fn refuse<S>(tls: &SharedTls<S>, error: ChannelError) -> ChannelError
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let parting = async {
        say(tls, Kind::AttestRefused).await?;
        tls.clone().shutdown().await.map_err(|error| from_io(&error))
    };
    // A courtesy: whether it arrives changes nothing.
    let _ = timeout(pump::PARTING_WORD, parting).await;
    error
}

async fn say<S>(tls: &SharedTls<S>, kind: Kind) -> Result<(), ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut writer = tls.clone();
    write_frame(&mut writer, kind, &[]).await?;
    writer.flush().await.map_err(|error| from_io(&error))
}

async fn answer_first_frame<S>(
    tls: &SharedTls<S>,
    reader: &mut FrameReader<SharedTls<S>>,
    answering: &Answering,
) -> Result<Answered, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let length = match reader.header().await? {
        Some((Kind::AttestRequest, length)) => length,
        Some((Kind::Application, _)) => return Err(Misbehaviour::FrameBeforeAttestation.into()),
        Some(_) => return Err(Misbehaviour::UnexpectedFrame.into()),
        None => return Err(Misbehaviour::Truncated.into()),
    };
    let request =
        AttestRequest::from_bytes(&reader.payload(length).await?).map_err(Misbehaviour::from)?;
    first_answer(tls, answering, &request).await
}

/// Answers the first challenge of the other end, or says that it cannot be answered.
pub(super) async fn first_answer<S>(
    tls: &SharedTls<S>,
    answering: &Answering,
    request: &AttestRequest,
) -> Result<Answered, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let exporter = tls.exporter(&request.nonce)?;
    let answer = answering.answer(request, &exporter).await;
    let mut writer = tls.clone();
    match &answer {
        Ok(answered) => {
            write_frame(&mut writer, Kind::AttestResponse, &answered.response).await?;
        }
        Err(_) => write_frame(&mut writer, Kind::AttestUnable, &[]).await?,
    }
    writer.flush().await.map_err(|error| from_io(&error))?;
    answer.map_err(ChannelError::from)
}
