//! A provider accepts a channel: handshake, one challenge answered; only then frames.
//!
//! Owns: the order of these, and their deadlines. Must not: read an application byte before.

use std::sync::Arc;

use cocoon_protocol::attest::AttestRequest;
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::limits;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::channel::error::{ChannelError, Misbehaviour, from_io};
use crate::channel::frame::{FrameReader, Kind, write_frame};
use crate::channel::identity::{Answered, ChannelIdentity, Issued};
use crate::channel::pump::{self, Side};
use crate::channel::tls::SharedTls;
use crate::channel::{AcceptedChannel, ChannelTasks};

/// What a provider needs to accept a session.
#[derive(Clone, Debug)]
pub struct AcceptOptions {
    /// The consumer, as the layer below authenticated it.
    pub peer: NodeId,
    /// Who owns the channel's tasks.
    pub tasks: ChannelTasks,
}

/// Accepts an attested channel over `stream`.
///
/// # Errors
/// [`ChannelError::Misbehaved`] for a consumer that sends anything before its challenge.
pub async fn accept<S>(
    stream: S,
    identity: Arc<ChannelIdentity>,
    options: AcceptOptions,
) -> Result<AcceptedChannel, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let issued = Box::pin(identity.current()).await?;
    let deadline = limits::ATTEST_TIMEOUT.to_duration();
    // Boxed: a handshake's state is large, and callers keep many of these futures.
    let handshake = Box::pin(TlsAcceptor::from(Arc::clone(&issued.config)).accept(stream));
    let tls = timeout(deadline, handshake)
        .await
        .map_err(|_| ChannelError::TimedOut)?
        .map_err(|error| from_io(&error))?;
    let tls = SharedTls::new(tls.into());
    tls.check_protocol()?;
    let mut reader = FrameReader::new(tls.clone());
    let first = Box::pin(first_answer(&tls, &mut reader, (&identity, options.peer), &issued));
    let answered = timeout(deadline, first).await.map_err(|_| ChannelError::TimedOut)??;
    tracing::info!(consumer = %options.peer, "accepted an attested session");
    let side = Side::Provider { identity, issued, peer: options.peer };
    let (sender, receiver) = pump::start(tls, reader, side, &options.tasks);
    Ok(AcceptedChannel {
        peer: options.peer,
        kind: answered.kind,
        evidence_digest: answered.evidence_digest,
        sender,
        receiver,
    })
}

async fn first_answer<S>(
    tls: &SharedTls<S>,
    reader: &mut FrameReader<SharedTls<S>>,
    (identity, peer): (&ChannelIdentity, NodeId),
    issued: &Issued,
) -> Result<Answered, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let length = match reader.header().await? {
        Some((Kind::AttestRequest, length)) => length,
        Some((Kind::Application, _)) => return Err(Misbehaviour::FrameBeforeAttestation.into()),
        Some((Kind::AttestResponse | Kind::AttestUnable, _)) => {
            return Err(Misbehaviour::UnexpectedFrame.into());
        }
        None => return Err(Misbehaviour::Truncated.into()),
    };
    let request =
        AttestRequest::from_bytes(&reader.payload(length).await?).map_err(Misbehaviour::from)?;
    let exporter = tls.exporter(&request.nonce)?;
    let answer = identity.answer(peer, &request, &exporter, issued).await;
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
