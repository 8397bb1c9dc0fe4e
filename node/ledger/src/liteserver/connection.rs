//! One liteserver: its connection, made again when it is lost, and whether it may still be asked.
//!
//! Owns: sockets, time limits, back-off, and the questions that wait for an answer.
//! Must not: judge an answer; it is told when the server has lied.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::adnl::{Incoming, Outgoing, Stream, StreamError};
use super::api::{Answer, Envelope, Query};
use super::servers::ServerAddress;

/// A connection with its handshake.
const CONNECT: Duration = Duration::from_secs(5);
/// A question and its answer.
const ANSWER: Duration = Duration::from_secs(10);
/// A sign of life goes out this often, and one must come in this often.
const PING: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(20);
/// The first pause after a failure; each is twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Questions that wait to be sent to one server.
const QUESTIONS: usize = 64;

/// Why a question got no answer that can be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("the liteserver was caught lying and is not asked any more")]
    Dropped,
    #[error("the liteserver failed a moment ago and is left alone for a while")]
    Resting,
    #[error("the liteserver cannot be reached")]
    Connect(#[source] StreamError),
    #[error("the connection to the liteserver was lost")]
    Lost,
    #[error("the liteserver took too long")]
    TimedOut,
    #[error("the liteserver's answer cannot be read")]
    Unreadable,
}

impl AskError {
    /// Whether the question may have reached the server.
    pub(crate) const fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Lost | Self::TimedOut | Self::Unreadable)
    }
}

/// A liteserver.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: ServerAddress,
    standing: Mutex<Standing>,
    /// Held while a connection is made, so that there is one.
    live: tokio::sync::Mutex<Option<Live>>,
}

#[derive(Debug, Default)]
struct Standing {
    failures: u32,
    rests_until: Option<Instant>,
    dropped: Option<String>,
}

type Waiting = Arc<Mutex<BTreeMap<[u8; 32], oneshot::Sender<Vec<u8>>>>>;

/// A connection. Its tasks end with it.
#[derive(Debug)]
struct Live {
    questions: mpsc::Sender<Vec<u8>>,
    waiting: Waiting,
    tasks: JoinSet<()>,
}

impl Live {
    /// Both directions work. When either task has ended, the connection is dead.
    fn is_alive(&mut self) -> bool {
        self.tasks.try_join_next().is_none() && self.tasks.len() == 2
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Only whole values are put in.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(crate) fn new(address: ServerAddress) -> Self {
        Self { address, standing: Mutex::default(), live: tokio::sync::Mutex::new(None) }
    }

    /// Never asks this server again, and says why in the log.
    pub(crate) fn drop_for(&self, reason: &dyn std::fmt::Display) {
        let mut standing = lock(&self.standing);
        if standing.dropped.is_none() {
            tracing::error!(liteserver = %self.address, %reason, "a liteserver is dropped: it lies");
            standing.dropped = Some(reason.to_string());
        }
    }

    /// Why it is not asked any more, if it is not.
    pub(crate) fn dropped(&self) -> Option<String> {
        lock(&self.standing).dropped.clone()
    }

    /// Whether it failed a moment ago and is left alone.
    pub(crate) fn is_resting(&self) -> bool {
        lock(&self.standing).rests_until.is_some_and(|until| Instant::now() < until)
    }

    /// Asks and waits for the answer.
    pub(crate) async fn ask(&self, query: &Query) -> Result<Answer, AskError> {
        {
            let standing = lock(&self.standing);
            if standing.dropped.is_some() {
                return Err(AskError::Dropped);
            }
            if standing.rests_until.is_some_and(|until| Instant::now() < until) {
                return Err(AskError::Resting);
            }
        }
        let answer = self.ask_once(query).await;
        let mut standing = lock(&self.standing);
        match &answer {
            Ok(_) => {
                standing.failures = 0;
                standing.rests_until = None;
            }
            Err(error) => {
                let factor = 2_u32.saturating_pow(standing.failures.min(16));
                let pause = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
                standing.failures = standing.failures.saturating_add(1);
                standing.rests_until = Some(Instant::now() + pause);
                tracing::debug!(liteserver = %self.address, %error, "a liteserver failed");
            }
        }
        answer
    }

    async fn ask_once(&self, query: &Query) -> Result<Answer, AskError> {
        let mut id = [0; 32];
        getrandom::fill(&mut id).map_err(|_| AskError::Connect(StreamError::Random))?;
        let (answered, answer) = oneshot::channel();
        let (questions, _waits) = {
            let mut live = self.live.lock().await;
            if live.as_mut().is_none_or(|live| !live.is_alive()) {
                *live = None;
                *live = Some(self.connect().await?);
            }
            let live = live.as_ref().ok_or(AskError::Lost)?;
            lock(&live.waiting).insert(id, answered);
            (live.questions.clone(), Forget { waiting: Arc::clone(&live.waiting), id })
        };
        let frame = Envelope::Query { id, query: query.encode() }.encode();
        questions.try_send(frame).map_err(|_| AskError::Lost)?;
        let answer = tokio::time::timeout(ANSWER, answer).await;
        let answer = answer.map_err(|_| AskError::TimedOut)?.map_err(|_| AskError::Lost)?;
        Answer::decode(&answer).map_err(|_| AskError::Unreadable)
    }

    async fn connect(&self) -> Result<Live, AskError> {
        let connect = async {
            let tcp = TcpStream::connect(self.address.address).await?;
            Stream::connect(tcp, &self.address.key).await
        };
        let timed_out = |_| AskError::Connect(StreamError::Io(std::io::ErrorKind::TimedOut.into()));
        let stream = tokio::time::timeout(CONNECT, connect).await.map_err(timed_out)?;
        let Stream { incoming, outgoing } = stream.map_err(AskError::Connect)?;
        let (questions, to_send) = mpsc::channel(QUESTIONS);
        let waiting = Waiting::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(send(outgoing, to_send));
        tasks.spawn(receive(incoming, Arc::clone(&waiting)));
        Ok(Live { questions, waiting, tasks })
    }
}

/// Takes a question off the list when nobody waits for it any more.
struct Forget {
    waiting: Waiting,
    id: [u8; 32],
}

impl Drop for Forget {
    fn drop(&mut self) {
        lock(&self.waiting).remove(&self.id);
    }
}

async fn send<W>(mut outgoing: Outgoing<W>, mut to_send: mpsc::Receiver<Vec<u8>>)
where
    W: tokio::io::AsyncWrite + Unpin,
{
    let mut number = 0_u64;
    loop {
        let next = tokio::time::timeout(PING, to_send.recv()).await;
        let frame = match next {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(_) => {
                number = number.wrapping_add(1);
                Envelope::Ping(number).encode()
            }
        };
        if outgoing.send(&frame).await.is_err() {
            return;
        }
    }
}

async fn receive<R>(mut incoming: Incoming<R>, waiting: Waiting)
where
    R: tokio::io::AsyncRead + Unpin,
{
    while let Ok(Ok(frame)) = tokio::time::timeout(SILENCE, incoming.receive()).await {
        if let Ok(Envelope::Answer { id, answer }) = Envelope::decode(&frame)
            && let Some(asker) = lock(&waiting).remove(&id)
        {
            let _ = asker.send(answer);
        }
    }
    // Whoever still waits learns that the connection is lost.
    lock(&waiting).clear();
}
