//! TLS as the channel uses it: version 1.3, hybrid key exchange, nothing remembered.
//!
//! Owns: both configurations, the certificate verifier, and a stream that several tasks share.
//! Must not: rely on a process-wide crypto provider; two are in the tree.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use cocoon_protocol::attest::{EXPORTER_LABEL, NONCE_BYTES, Refusal};
use cocoon_protocol::identity::NodeId;
use cocoon_protocol::units::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::certificate::SessionCertificate;
use crate::channel::error::{ChannelError, Misbehaviour};

/// Keeps a peer that speaks TLS for another purpose from going on.
const APPLICATION_PROTOCOL: &[u8] = b"cocoon/session/1";

/// Post-quantum hybrid first: a prompt recorded today is worth decrypting in twenty years. Plain
/// X25519 remains for a peer whose library lacks the hybrid.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519];
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
});

/// A certificate (DER) and its key (PKCS #8) as TLS uses them.
pub(super) fn certified(certificate: Vec<u8>, key: Vec<u8>) -> Result<Arc<CertifiedKey>, Error> {
    let key = PrivateKeyDer::Pkcs8(key.into());
    CertifiedKey::from_der(vec![certificate.into()], key, &PROVIDER).map(Arc::new)
}

/// A provider's configuration for one certificate. With `demand` it asks consumers for theirs.
pub(super) fn server_config(
    certified: &Arc<CertifiedKey>,
    demand: bool,
) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])?;
    let builder = if demand {
        builder.with_client_cert_verifier(Arc::new(ConsumerCertificate))
    } else {
        builder.with_no_client_auth()
    };
    let certificate = SingleCertAndKey::from(CertifiedKey::clone(certified));
    let mut config = builder.with_cert_resolver(Arc::new(certificate));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![APPLICATION_PROTOCOL.to_vec()];
    Ok(config)
}

/// A consumer's configuration for one connection; it shows `own` when it is asked to.
pub(super) fn client_config(
    verifier: Arc<CertificateReader>,
    own: Arc<OwnCertificate>,
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(own);
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.enable_early_data = false;
    config.alpn_protocols = vec![APPLICATION_PROTOCOL.to_vec()];
    Ok(config)
}

/// A consumer's own certificate, and whether the provider asked for it. TLS authenticates the
/// asking: it is in the transcript that the provider's key signs.
#[derive(Debug, Default)]
pub(super) struct OwnCertificate {
    certified: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl OwnCertificate {
    pub(super) fn new(certified: Option<Arc<CertifiedKey>>) -> Self {
        Self { certified, asked: AtomicBool::new(false) }
    }

    /// Whether the provider asked for a certificate; settled when the handshake is over.
    pub(super) fn was_asked_for(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Release);
        self.certified.clone()
    }

    fn has_certs(&self) -> bool {
        self.certified.is_some()
    }
}

/// Lets any single certificate through, or none: TLS proves only that the consumer holds its key.
/// Everything else is judged after the handshake, where a refusal can say its reason.
#[derive(Debug)]
struct ConsumerCertificate;

impl ClientCertVerifier for ConsumerCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match intermediates {
            [] => Ok(ClientCertVerified::assertion()),
            _ => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &PROVIDER.signature_verification_algorithms;
    verify_tls13_signature(message, certificate, signature, algorithms)
}

/// A name for the API's sake; it is neither sent nor compared.
pub(super) fn server_name() -> Result<ServerName<'static>, ChannelError> {
    ServerName::try_from("cocoon.invalid").map_err(|_| ChannelError::Certificate)
}

/// Reads the provider's certificate during the handshake, and refuses a wrong peer before the
/// handshake ends. The identity quote inside is judged after it, when the collateral is there.
pub(super) struct CertificateReader {
    dialled: NodeId,
    now: Timestamp,
    outcome: OnceLock<Result<SessionCertificate, Refusal>>,
}

impl fmt::Debug for CertificateReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateReader").field("dialled", &self.dialled).finish_non_exhaustive()
    }
}

impl CertificateReader {
    pub(super) fn new(dialled: NodeId, now: Timestamp) -> Self {
        Self { dialled, now, outcome: OnceLock::new() }
    }

    /// What was read; `None` before the handshake came to it. The reason of a refusal travels this
    /// way and not through TLS, which would flatten it and tell it to the peer.
    pub(super) fn outcome(&self) -> Option<&Result<SessionCertificate, Refusal>> {
        self.outcome.get()
    }

    fn read(&self, certificate: &[u8]) -> Result<SessionCertificate, Refusal> {
        let certificate = SessionCertificate::read(certificate, self.now)?;
        let presented = certificate.record.peer;
        if presented != self.dialled {
            return Err(Refusal::WrongPeer { dialled: self.dialled, presented });
        }
        Ok(certificate)
    }
}

impl ServerCertVerifier for CertificateReader {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let outcome = self.outcome.get_or_init(|| match intermediates {
            [] => self.read(certificate),
            _ => Err(Refusal::CertificateInvalid),
        });
        match outcome {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(_) => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

/// A TLS stream that the reading, the writing and the attesting task share. Each poll locks it for
/// as long as it runs, which is never across a wait.
#[derive(Debug)]
pub(super) struct SharedTls<S>(Arc<Mutex<TlsStream<S>>>);

impl<S> Clone for SharedTls<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> SharedTls<S> {
    pub(super) fn new(stream: TlsStream<S>) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    fn lock(&self) -> MutexGuard<'_, TlsStream<S>> {
        // A panic inside rustls would leave a stream that fails by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group that the key exchange used.
    #[cfg(test)]
    pub(super) fn key_exchange(&self) -> Option<rustls::NamedGroup> {
        let stream = self.lock();
        stream.get_ref().1.negotiated_key_exchange_group().map(|group| group.name())
    }

    /// The certificate that the peer showed, if any.
    pub(super) fn certificate(&self) -> Option<Vec<u8>> {
        let stream = self.lock();
        let shown = stream.get_ref().1.peer_certificates();
        shown.and_then(|chain| chain.first()).map(|der| der.to_vec())
    }

    /// Whether both ends named our protocol. TLS lets a peer that names none pass.
    pub(super) fn check_protocol(&self) -> Result<(), Misbehaviour> {
        match self.lock().get_ref().1.alpn_protocol() {
            Some(APPLICATION_PROTOCOL) => Ok(()),
            _ => Err(Misbehaviour::OtherProtocol),
        }
    }

    /// `TLS-Exporter(EXPORTER_LABEL, nonce, 32)` of this connection (RFC 8446 §7.5).
    pub(super) fn exporter(&self, nonce: &[u8; NONCE_BYTES]) -> Result<[u8; 32], Error> {
        match &*self.lock() {
            TlsStream::Client(stream) => {
                stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(nonce))
            }
            TlsStream::Server(stream) => {
                stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(nonce))
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for SharedTls<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for SharedTls<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(cx)
    }
}
