//! A consumer opens a channel: handshake, challenge, verdict; only then frames.
//!
//! Owns: the order of these, and their deadlines. A provider that demands it is answered after the
//! verdict and before the first frame: a stranger learns nothing about this node's TEE but what its
//! certificate says.
//! Must not: send an application byte before the verdict.

use std::sync::Arc;

use bytes::Bytes;
use cocoon_protocol::attest::{AttestRequest, NetworkId, Refusal, SessionRole, Tier, Verdict};
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::limits;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::Clock;
use crate::appraiser::Appraiser;
use crate::channel::accept::first_answer;
use crate::channel::challenge::Challenger;
use crate::channel::error::{ChannelError, Misbehaviour, from_io};
use crate::channel::frame::{FrameReader, Kind, write_frame};
use crate::channel::identity::ChannelIdentity;
use crate::channel::pump::{self, Answering, Challenging, Side};
use crate::channel::tls::{self, CertificateReader, OwnCertificate, SharedTls};
use crate::channel::{AttestedChannel, ChannelTasks};

/// What a consumer demands of a provider.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Whom the stream leads to. Anybody else is refused.
    pub dialled: NodeId,
    /// The network.
    pub network: NetworkId,
    /// The policy at work.
    pub appraiser: Arc<Appraiser>,
    /// The lowest tier that will do; the policy's minimum holds beside it.
    pub minimum_tier: Tier,
    /// SHA-256 of the capabilities in the offer that was chosen, where the caller has one.
    pub capabilities: Option<[u8; 32]>,
    /// What this node shows to a provider that demands attested consumers; `None` without a TEE.
    pub identity: Option<Arc<ChannelIdentity>>,
    /// The present.
    pub clock: Clock,
    /// Who owns the channel's tasks.
    pub tasks: ChannelTasks,
}

/// Opens an attested channel over `stream`.
///
/// # Errors
/// [`ChannelError::Refused`] names the check that the provider failed; nothing but the challenge
/// was sent to it then. [`ChannelError::AttestationDemanded`] and
/// [`ChannelError::RefusedByProvider`] when the provider wants more of this node than it can show.
pub async fn connect<S>(stream: S, options: ConnectOptions) -> Result<AttestedChannel, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let own = match &options.identity {
        Some(identity) => Some((Arc::clone(identity), Box::pin(identity.current_in_time()).await?)),
        None => None,
    };
    let deadline = limits::ATTEST_TIMEOUT.to_duration();
    // Boxed: a handshake's state is large, and callers keep many of these futures.
    let shown = own.as_ref().map(|(_, issued)| Arc::clone(&issued.certified));
    let handshake = Box::pin(handshake(stream, &options, OwnCertificate::new(shown)));
    let (tls, challenger, demanded) =
        timeout(deadline, handshake).await.map_err(|_| ChannelError::TimedOut)??;
    let tls = SharedTls::new(tls);
    tls.check_protocol()?;
    let answering = match (demanded, own) {
        (true, None) => return Err(ChannelError::AttestationDemanded),
        (true, Some((identity, issued))) => {
            let (role, peer) = (SessionRole::Client, options.dialled);
            Some(Answering { identity, issued, role, peer })
        }
        (false, _) => None,
    };
    let mut reader = FrameReader::new(tls.clone());
    let first = Box::pin(first_challenge(&tls, &mut reader, &challenger));
    let verdict = first.await?;
    if let Some(answering) = &answering {
        let answer = Box::pin(answer_demand(&tls, &mut reader, answering));
        timeout(deadline, answer).await.map_err(|_| ChannelError::TimedOut)??;
    }
    tracing::info!(
        provider = %verdict.peer,
        tier = %verdict.tier,
        simulated = verdict.simulated,
        mutual = answering.is_some(),
        "opened an attested session"
    );
    let challenging = Challenging { challenger, verdict: Box::new(verdict.clone()) };
    let side = Side { challenging: Some(challenging), answering };
    let (sender, receiver) = pump::start(tls, reader, side, &options.tasks);
    Ok(AttestedChannel { verdict, sender, receiver })
}

/// The stream, what the provider is held against, and whether it demands an attested consumer.
type Handshaken<S> = (TlsStream<S>, Arc<Challenger>, bool);

async fn handshake<S>(
    stream: S,
    options: &ConnectOptions,
    own: OwnCertificate,
) -> Result<Handshaken<S>, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let verifier = Arc::new(CertificateReader::new(options.dialled, options.clock.now()));
    let own = Arc::new(own);
    let config = tls::client_config(Arc::clone(&verifier), Arc::clone(&own))?;
    let connected = TlsConnector::from(Arc::new(config)).connect(tls::server_name()?, stream).await;
    let certificate = match verifier.outcome() {
        Some(Ok(certificate)) => Some(certificate.clone()),
        Some(Err(refusal)) => return Err(refusal.clone().into()),
        None => None,
    };
    let tls = connected.map_err(|error| from_io(&error))?;
    // TLS 1.3 without resumption always shows a certificate; without one there is no provider.
    let certificate = certificate.ok_or(Refusal::CertificateInvalid)?;
    let challenger = Challenger {
        peer: options.dialled,
        role: SessionRole::Server,
        network: options.network,
        want: options.appraiser.policy().demanded(options.minimum_tier),
        appraiser: Arc::clone(&options.appraiser),
        capabilities: options.capabilities,
        clock: options.clock.clone(),
        certificate,
    };
    Ok((tls.into(), Arc::new(challenger), own.was_asked_for()))
}

/// Asks for evidence and judges it: what a consumer does first, and a demanding provider too.
pub(super) async fn first_challenge<S>(
    tls: &SharedTls<S>,
    reader: &mut FrameReader<SharedTls<S>>,
    challenger: &Arc<Challenger>,
) -> Result<Verdict, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = challenger.request().ok_or(ChannelError::Certificate)?;
    let exporter = tls.exporter(&request.nonce)?;
    let exchange = async {
        let mut writer = tls.clone();
        write_frame(&mut writer, Kind::AttestRequest, &request.to_bytes()).await?;
        writer.flush().await.map_err(|error| from_io(&error))?;
        read_answer(reader, challenger.role).await
    };
    let answer = timeout(limits::ATTEST_TIMEOUT.to_duration(), exchange)
        .await
        .map_err(|_| challenger.refused(Refusal::TimedOut))?;
    let answer = answer?.ok_or_else(|| challenger.refused(Refusal::Unable))?;
    let verdict = challenger.judge(request.nonce, exporter, answer).await;
    verdict.map_err(|refusal| challenger.refused(refusal))
}

/// The answer's bytes; `None` when the other end cannot attest.
async fn read_answer<S>(
    reader: &mut FrameReader<SharedTls<S>>,
    role: SessionRole,
) -> Result<Option<Bytes>, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match reader.header().await? {
        Some((Kind::AttestResponse, length)) => reader.payload(length).await.map(Some),
        Some((Kind::AttestUnable, _)) => Ok(None),
        // A provider that demands evidence says so before it gives any, where it was shown none.
        Some((Kind::AttestRefused, _)) if role == SessionRole::Server => {
            Err(ChannelError::RefusedByProvider)
        }
        Some(_) => Err(Misbehaviour::UnexpectedFrame.into()),
        None => Err(Misbehaviour::Truncated.into()),
    }
}

/// Answers the challenge of a provider that was verified, and waits for its word.
async fn answer_demand<S>(
    tls: &SharedTls<S>,
    reader: &mut FrameReader<SharedTls<S>>,
    answering: &Answering,
) -> Result<(), ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let length = match reader.header().await? {
        Some((Kind::AttestRequest, length)) => length,
        Some((Kind::AttestRefused, _)) => return Err(ChannelError::RefusedByProvider),
        Some(_) => return Err(Misbehaviour::UnexpectedFrame.into()),
        None => return Err(Misbehaviour::Truncated.into()),
    };
    let request =
        AttestRequest::from_bytes(&reader.payload(length).await?).map_err(Misbehaviour::from)?;
    first_answer(tls, answering, &request).await?;
    match reader.header().await? {
        Some((Kind::AttestAccepted, _)) => Ok(()),
        Some((Kind::AttestRefused, _)) => Err(ChannelError::RefusedByProvider),
        Some(_) => Err(Misbehaviour::UnexpectedFrame.into()),
        None => Err(Misbehaviour::Truncated.into()),
    }
}
