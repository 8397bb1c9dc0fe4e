//! A consumer opens a channel: handshake, challenge, verdict; only then frames.
//!
//! Owns: the order of these, and their deadlines. Must not: send an application byte before.

use std::sync::Arc;

use bytes::Bytes;
use cocoon_protocol::attest::{NetworkId, Refusal, Tier, Verdict};
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::limits;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::Clock;
use crate::appraiser::Appraiser;
use crate::channel::challenge::Challenger;
use crate::channel::error::{ChannelError, from_io};
use crate::channel::frame::{FrameReader, Kind, write_frame};
use crate::channel::pump::{self, Side};
use crate::channel::tls::{self, CertificateReader, SharedTls};
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
    /// The present.
    pub clock: Clock,
    /// Who owns the channel's tasks.
    pub tasks: ChannelTasks,
}

/// Opens an attested channel over `stream`.
///
/// # Errors
/// [`ChannelError::Refused`] names the check that the provider failed; nothing but the challenge
/// was sent to it then.
pub async fn connect<S>(stream: S, options: ConnectOptions) -> Result<AttestedChannel, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let deadline = limits::ATTEST_TIMEOUT.to_duration();
    // Boxed: a handshake's state is large, and callers keep many of these futures.
    let handshake = Box::pin(handshake(stream, &options));
    let (tls, challenger) =
        timeout(deadline, handshake).await.map_err(|_| ChannelError::TimedOut)??;
    let tls = SharedTls::new(tls);
    tls.check_protocol()?;
    let mut reader = FrameReader::new(tls.clone());
    let first = Box::pin(first_challenge(&tls, &mut reader, &challenger));
    let verdict = first.await?;
    tracing::info!(
        provider = %verdict.peer,
        tier = %verdict.tier,
        simulated = verdict.simulated,
        "opened an attested session"
    );
    let side = Side::Consumer { challenger, verdict: Box::new(verdict.clone()) };
    let (sender, receiver) = pump::start(tls, reader, side, &options.tasks);
    Ok(AttestedChannel { verdict, sender, receiver })
}

async fn handshake<S>(
    stream: S,
    options: &ConnectOptions,
) -> Result<(TlsStream<S>, Arc<Challenger>), ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let verifier = Arc::new(CertificateReader::new(options.dialled, options.clock.now()));
    let config = tls::client_config(Arc::clone(&verifier))?;
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
        dialled: options.dialled,
        network: options.network,
        want: options.minimum_tier.max(options.appraiser.policy().minimum_tier()),
        appraiser: Arc::clone(&options.appraiser),
        capabilities: options.capabilities,
        clock: options.clock.clone(),
        certificate,
    };
    Ok((tls.into(), Arc::new(challenger)))
}

async fn first_challenge<S>(
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
        read_answer(reader).await
    };
    let answer = timeout(limits::ATTEST_TIMEOUT.to_duration(), exchange)
        .await
        .map_err(|_| Refusal::TimedOut)??;
    Ok(challenger.judge(request.nonce, exporter, answer).await?)
}

async fn read_answer<S>(reader: &mut FrameReader<SharedTls<S>>) -> Result<Bytes, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    use crate::channel::error::Misbehaviour;
    match reader.header().await? {
        Some((Kind::AttestResponse, length)) => reader.payload(length).await,
        Some((Kind::AttestUnable, _)) => Err(Refusal::Unable.into()),
        Some((Kind::Application | Kind::AttestRequest, _)) => {
            Err(Misbehaviour::UnexpectedFrame.into())
        }
        None => Err(Misbehaviour::Truncated.into()),
    }
}
