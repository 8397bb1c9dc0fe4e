//! The command line's end of the control socket. Blocking: a command asks one thing and ends.
//!
//! Owns: connecting, asking, and telling a node that does not run from one that refuses.
//! Must not: print, or start a node.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::{
    ANSWER_TIME, Answer, Envelope, REPLY_BYTES, Refusal, Reply, Request, TRANSFER_TIME, VERSION,
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No node runs on this data folder.
    #[error("no node is running on this data folder")]
    NotRunning,
    /// The connection failed.
    #[error("cannot talk to the running node")]
    Io(#[source] io::Error),
    /// The answer is not one of ours.
    #[error("the running node's answer cannot be read")]
    Malformed,
    /// The node said no.
    #[error("the running node refused")]
    Refused(#[source] Refusal),
}

impl ControlError {
    /// What to do about it.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotRunning => Some(
                "start one with `cocoon-node --consume` or `--provide`, or name its `--data-dir`",
            ),
            Self::Malformed | Self::Refused(Refusal::OtherVersion { .. }) => {
                Some("the node and this command are of different versions: restart the node")
            }
            Self::Io(_) | Self::Refused(_) => None,
        }
    }
}

/// A connection for one request.
#[derive(Debug)]
pub struct Client(UnixStream);

impl Client {
    /// Connects to the node whose control socket this is.
    pub fn connect(path: &Path) -> Result<Self, ControlError> {
        // No socket; a socket that nobody listens on; a path too long for any socket.
        let nobody = [
            io::ErrorKind::NotFound,
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::InvalidInput,
        ];
        let stream = UnixStream::connect(path).map_err(|error| {
            let nobody = nobody.contains(&error.kind());
            if nobody { ControlError::NotRunning } else { ControlError::Io(error) }
        })?;
        let patience = TRANSFER_TIME.saturating_add(ANSWER_TIME);
        stream.set_read_timeout(Some(patience)).map_err(ControlError::Io)?;
        stream.set_write_timeout(Some(TRANSFER_TIME)).map_err(ControlError::Io)?;
        Ok(Self(stream))
    }

    /// Asks, and waits for the answer.
    pub fn ask(mut self, request: Request) -> Result<Answer, ControlError> {
        let envelope = Envelope { version: VERSION, request };
        let mut line = serde_json::to_vec(&envelope).map_err(|_| ControlError::Malformed)?;
        line.push(b'\n');
        // A busy node answers without having read; its answer counts more than this failure.
        let sent = self.0.write_all(&line);
        let mut reply = Vec::new();
        let read = (&self.0).take(REPLY_BYTES).read_to_end(&mut reply);
        match serde_json::from_slice(&reply) {
            Ok(Reply::Ok(answer)) => Ok(answer),
            Ok(Reply::Error(refusal)) => Err(ControlError::Refused(refusal)),
            Err(_) => {
                sent.and(read).map_err(ControlError::Io)?;
                Err(ControlError::Malformed)
            }
        }
    }
}
