//! The advisories that this consumer's policy follows: fetched, remembered, put in force.
//!
//! Owns: where lists come from, the memory against older ones, and what is said about both.
//! Must not: loosen anything. The appraiser asks a list after the policy, and a list only refuses.
//!
//! The last good list of each maintainer lies in the data folder as it was signed. It is read before
//! anything is fetched, so that a node that cannot fetch still refuses what it refused yesterday, and it
//! is the measure against which a list counts as newer.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cocoon_attest::collateral::{Http, HttpError};
use cocoon_attest::{
    ADVISORY_FILE_BYTES, AdvisoryFileError, Appraiser, read_advisories, read_newer_advisories,
};
use cocoon_protocol::attest::{AdvisoryList, Subscription};

use crate::clock::{Clock as _, SystemClock};
use crate::data_folder::write_private;
use crate::shutdown::Tasks;

/// How often sources are asked. A list is for things that become known over days.
const EVERY: Duration = Duration::from_secs(3600);

/// How long a node's start waits for sources.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a list could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    /// The file cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No client.
    #[error("this node has no HTTP client; name a file as the source")]
    NoClient,
    /// Nobody answered.
    #[error("the source did not answer")]
    Http(#[from] HttpError),
    /// Somebody answered, but not with a list.
    #[error("the source answered with status {status}")]
    Status {
        /// HTTP's.
        status: u16,
    },
    /// What came is not a list that may be put in force.
    #[error("the list is refused")]
    List(#[from] AdvisoryFileError),
    /// The list was put in force but may be forgotten at the next start.
    #[error("the list cannot be kept")]
    Keep(#[source] Box<crate::data_folder::FolderError>),
}

/// What follows the lists of one policy.
#[derive(Debug)]
pub(crate) struct Follower {
    appraiser: Arc<Appraiser>,
    http: Option<Arc<dyn Http>>,
    /// Relative sources start here: the policy's folder.
    base: PathBuf,
    /// The last good lists.
    folder: PathBuf,
}

impl Follower {
    /// Reads what was kept, and asks every source once. A node does not start its work before.
    pub(crate) async fn start(
        appraiser: Arc<Appraiser>,
        http: Option<Arc<dyn Http>>,
        policy: &Path,
        folder: PathBuf,
    ) -> Self {
        let base = policy.parent().map(Path::to_owned).unwrap_or_default();
        let follower = Self { appraiser, http, base, folder };
        for subscription in follower.subscriptions() {
            if let Some(kept) = follower.kept(&subscription) {
                match read_newer_advisories(&kept, subscription.maintainer, None) {
                    Ok(list) => follower.put_in_force(&list, "kept"),
                    Err(error) => tracing::warn!(
                        maintainer = %subscription.maintainer, %error,
                        "the kept list of advisories is damaged"
                    ),
                }
            }
        }
        // A source that hangs is no reason not to start: a list that is required and missing refuses.
        if tokio::time::timeout(PATIENCE, follower.refresh()).await.is_err() {
            tracing::warn!("a source of advisories does not answer; it is asked again later");
        }
        follower
    }

    /// Asks the sources again every hour, until the node ends.
    pub(crate) fn run(self, tasks: &Tasks) {
        if self.subscriptions().is_empty() {
            return;
        }
        let stopping = tasks.stopping().clone();
        tasks.spawn_leaf(async move {
            while stopping.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
                self.refresh().await;
            }
        });
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        self.appraiser.policy().subscriptions().to_vec()
    }

    /// Asks every source once.
    async fn refresh(&self) {
        for subscription in self.subscriptions() {
            let maintainer = subscription.maintainer;
            if let Err(error) = self.update(&subscription).await {
                let error = crate::driver::ledger_desk::chain(&error);
                let followed = self.appraiser.followed();
                let mut known = followed.followed().iter();
                let known = known.find(|(it, _)| it.maintainer == maintainer);
                match known.and_then(|(_, list)| list.as_ref()) {
                    Some(list) => tracing::warn!(
                        %maintainer, version = list.version, %error,
                        "no newer advisories; the last good list stays in force"
                    ),
                    None => tracing::warn!(
                        %maintainer, required = subscription.required, %error, "no advisories"
                    ),
                }
            }
            self.warn_of_end(&subscription);
        }
    }

    fn warn_of_end(&self, subscription: &Subscription) {
        let now = SystemClock.now();
        for (followed, list) in self.appraiser.followed().followed() {
            if let Some(list) = list
                && followed.maintainer == subscription.maintainer
                && list.expires <= now
            {
                tracing::warn!(
                    maintainer = %list.maintainer, version = list.version,
                    required = followed.required,
                    "the list of advisories has ended; what it refuses stays refused"
                );
            }
        }
    }

    async fn update(&self, subscription: &Subscription) -> Result<(), FollowError> {
        let bytes = self.fetch(&subscription.source).await?;
        let kept = self.kept(subscription);
        // What is damaged on disk is no measure; what is in force is one too, below.
        let known = kept.as_deref().filter(|bytes| read_advisories(bytes).is_ok());
        let list = read_newer_advisories(&bytes, subscription.maintainer, known)?;
        self.put_in_force(&list, "fetched");
        if known == Some(bytes.as_slice()) {
            return Ok(());
        }
        std::fs::create_dir_all(&self.folder)
            .map_err(|source| FollowError::Read { path: self.folder.clone(), source })?;
        write_private(&self.path(subscription), &bytes)
            .map_err(|error| FollowError::Keep(Box::new(error)))
    }

    async fn fetch(&self, source: &str) -> Result<Vec<u8>, FollowError> {
        if source.starts_with("http://") || source.starts_with("https://") {
            let http = self.http.as_ref().ok_or(FollowError::NoClient)?;
            let answer = http.get(source, ADVISORY_FILE_BYTES).await?;
            return match answer.status {
                200 => Ok(answer.body),
                status => Err(FollowError::Status { status }),
            };
        }
        let path = self.base.join(source);
        read_bounded(&path).map_err(|source| FollowError::Read { path, source })
    }

    fn put_in_force(&self, list: &AdvisoryList, how: &'static str) {
        if self.appraiser.follow(list) {
            tracing::info!(
                maintainer = %list.maintainer, version = list.version, how,
                "advisories in force"
            );
        }
    }

    fn path(&self, subscription: &Subscription) -> PathBuf {
        self.folder.join(subscription.maintainer.to_string())
    }

    fn kept(&self, subscription: &Subscription) -> Option<Vec<u8>> {
        read_bounded(&self.path(subscription)).ok()
    }
}

/// One byte more than a list may have, so that what is too long is refused and not cut.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let limit = u64::try_from(ADVISORY_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use cocoon_attest::collateral::{HttpAnswer, HttpFuture};
    use cocoon_attest::{parse_policy, sign_advisories};
    use cocoon_protocol::identity::NodeKey;

    use super::*;

    /// A service that answers what it was last told to, or not at all.
    #[derive(Debug, Default)]
    struct Service(Mutex<Option<(u16, String)>>);

    impl Http for Service {
        fn get<'a>(&'a self, url: &'a str, limit: usize) -> HttpFuture<'a> {
            assert_eq!((url, limit), ("https://lists.example/a", ADVISORY_FILE_BYTES));
            let answer = self.0.lock().unwrap().clone();
            Box::pin(async move {
                let reason = || HttpError::Unreachable { reason: "nobody".to_owned() };
                let (status, body) = answer.ok_or_else(reason)?;
                Ok(HttpAnswer { status, body: body.into(), ..HttpAnswer::default() })
            })
        }
    }

    fn key() -> NodeKey {
        NodeKey::from_secret(&[5; 32])
    }

    fn list(version: u64) -> String {
        let content = format!("version = {version}\nexpires = \"2100-01-01T00:00:00Z\"\n");
        sign_advisories(&content, &key()).unwrap()
    }

    struct Stage {
        folder: tempfile::TempDir,
        service: Arc<Service>,
        source: &'static str,
    }

    impl Stage {
        fn new(source: &'static str) -> Self {
            Self { folder: tempfile::tempdir().unwrap(), service: Arc::default(), source }
        }

        fn serve(&self, list: &str) {
            *self.service.0.lock().unwrap() = Some((200, list.to_owned()));
        }

        /// A node's start: what is in force afterwards, by version.
        async fn start(&self) -> (Follower, Option<u64>) {
            let policy = format!(
                "version = 1\ntrust = \"production\"\n[[advisories]]\nmaintainer = \"{}\"\n\
                 source = \"{}\"\n",
                key().id(),
                self.source
            );
            let appraiser = Arc::new(Appraiser::new(parse_policy(&policy).unwrap()));
            let (policy, data) =
                (self.folder.path().join("policy.toml"), self.folder.path().join("kept"));
            let http: Arc<dyn Http> = self.service.clone();
            let follower = Follower::start(appraiser, Some(http), &policy, data).await;
            let version = in_force(&follower);
            (follower, version)
        }
    }

    fn in_force(follower: &Follower) -> Option<u64> {
        let followed = follower.appraiser.followed();
        followed.followed()[0].1.as_ref().map(|list| list.version)
    }

    #[tokio::test]
    async fn the_last_good_list_outlives_its_source_and_the_node() {
        let stage = Stage::new("https://lists.example/a");
        assert_eq!(stage.start().await.1, None);
        stage.serve(&list(7));
        let (follower, version) = stage.start().await;
        assert_eq!(version, Some(7));
        // The source goes away, and comes back with something else.
        *stage.service.0.lock().unwrap() = None;
        follower.refresh().await;
        assert_eq!(in_force(&follower), Some(7));
        *stage.service.0.lock().unwrap() = Some((404, list(9)));
        assert_eq!(stage.start().await.1, Some(7));
        stage.serve("no list");
        assert_eq!(stage.start().await.1, Some(7));
    }

    #[tokio::test]
    async fn an_older_list_is_refused_after_a_restart_too() {
        let stage = Stage::new("https://lists.example/a");
        stage.serve(&list(7));
        let (follower, _) = stage.start().await;
        stage.serve(&list(6));
        follower.refresh().await;
        assert_eq!(in_force(&follower), Some(7));
        assert_eq!(stage.start().await.1, Some(7));
        stage.serve(&list(8));
        follower.refresh().await;
        assert_eq!(in_force(&follower), Some(8));
        // And from then on this one is the measure.
        stage.serve(&list(7));
        assert_eq!(stage.start().await.1, Some(8));
    }

    #[tokio::test]
    async fn a_source_may_be_a_file_beside_the_policy() {
        let stage = Stage::new("lists/a");
        std::fs::create_dir(stage.folder.path().join("lists")).unwrap();
        assert_eq!(stage.start().await.1, None);
        std::fs::write(stage.folder.path().join("lists/a"), list(3)).unwrap();
        assert_eq!(stage.start().await.1, Some(3));
    }
}
