//! Talking to the hub: bounded retries, transfers that go on where they broke off, lengths and hashes that are checked.

mod blob;
mod line;
mod trouble;

use std::{ops::Range, time::Duration};

use futures_util::{Stream, TryStreamExt as _};
use hf_hub::{
    HFClient, HFError,
    repository::{HFRepository, RepoTreeEntry, RepoTypeDataset, RepoTypeModel},
};
pub(super) use line::{Line, Step, run};
pub(super) use trouble::{Trouble, root_cause};

use super::{
    HubSettings,
    cache::{Cache, Kind, is_commit, is_hash},
    listing::{Entry, Listing},
};
use crate::checkpoint::Error;

/// How often a request is made before the hub counts as unavailable.
const TRIES: u32 = 5;
/// The longest pause that the hub may ask for.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a transfer may be silent.
pub(super) const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// hf-hub looks for a token in the environment unless it has one; one that fits in no header is never sent.
const NO_TOKEN: &str = "\n";
pub(super) const USER_AGENT: &str = concat!("graspd/", env!("CARGO_PKG_VERSION"));

/// One revision of a repository on the hub, and where it goes.
pub(super) struct Session<'a> {
    client: HFClient,
    settings: &'a HubSettings,
    cache: &'a Cache,
    line: &'a Line,
}

impl<'a> Session<'a> {
    pub(super) fn new(settings: &'a HubSettings, cache: &'a Cache, line: &'a Line) -> Result<Self, Error> {
        let broken =
            |error: String| Error::HubUnavailable(format!("the hub {} cannot be used: {error}", settings.endpoint));
        let http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .map_err(|error| broken(error.to_string()))?;
        let client = HFClient::builder()
            .endpoint(&settings.endpoint)
            .token(settings.token.as_deref().unwrap_or(NO_TOKEN))
            .user_agent(USER_AGENT)
            .client(http)
            .cache_dir(&settings.cache_dir)
            // The tries are counted here, where a transfer that breaks off counts as well.
            .retry_max_attempts(0)
            .build()
            .map_err(|error| broken(error.to_string()))?;
        Ok(Self { client, settings, cache, line })
    }

    fn model(&self) -> HFRepository<RepoTypeModel> {
        let (owner, name) = self.cache.owner_and_name();
        self.client.model(owner, name)
    }

    fn dataset(&self) -> HFRepository<RepoTypeDataset> {
        let (owner, name) = self.cache.owner_and_name();
        self.client.dataset(owner, name)
    }

    /// The commit that the revision is now.
    pub(super) async fn commit(&self) -> Result<String, Error> {
        let revision = self.cache.revision.as_str();
        let found = self
            .again("the commit", async || {
                let commit = match self.cache.kind {
                    Kind::Models => self.model().info().revision(revision).send().await.map(|info| info.sha),
                    Kind::Datasets => self.dataset().info().revision(revision).send().await.map(|info| info.sha),
                };
                commit.map_err(|error| self.trouble(error))
            })
            .await?;
        found.filter(|commit| is_commit(commit)).ok_or_else(|| self.nonsense(&format!("no commit for '{revision}'")))
    }

    /// The files at the top of a model repository.
    pub(super) async fn list_models(&self, commit: &str) -> Result<Listing, Error> {
        let found: Vec<RepoTreeEntry> = self
            .again("the list of files", async || {
                let repository = self.model();
                let list = async { repository.list_tree().revision(commit).send()?.try_collect().await };
                list.await.map_err(|error: HFError| self.trouble(error))
            })
            .await?;
        let files = found.into_iter().filter_map(entry);
        Ok(files.map(|file| (file.path.clone(), file)).collect())
    }

    /// One file of a data set repository.
    pub(super) async fn find(&self, commit: &str, file: &str) -> Result<Entry, Error> {
        let found = self
            .again("the list of files", async || {
                let paths = vec![file.to_owned()];
                let found = self.dataset().get_paths_info().paths(paths).revision(commit).send().await;
                found.map_err(|error| self.trouble(error))
            })
            .await?;
        let absent = || Error::NotFound(format!("{} has no file {file}", self.cache.repository));
        found.into_iter().filter_map(entry).find(|entry| entry.path == file).ok_or_else(absent)
    }

    /// The bytes of a file in `range`; a server that knows no ranges sends all of it.
    pub(super) async fn open(
        &self,
        commit: &str,
        file: &Entry,
        range: Range<u64>,
    ) -> Result<impl Stream<Item = Result<impl AsRef<[u8]> + use<>, HFError>> + Unpin + use<>, Trouble> {
        let range = (range != (0..file.size)).then_some(range);
        let name = file.path.as_str();
        let opened = match self.cache.kind {
            Kind::Models => {
                let repository = self.model();
                repository.download_file_stream().filename(name).revision(commit).maybe_range(range).send().await
            }
            Kind::Datasets => {
                let repository = self.dataset();
                repository.download_file_stream().filename(name).revision(commit).maybe_range(range).send().await
            }
        };
        opened.map(|(_, stream)| stream).map_err(|error| self.trouble(error))
    }

    pub(super) async fn again<T>(
        &self,
        what: &str,
        request: impl AsyncFnMut() -> Result<T, Trouble>,
    ) -> Result<T, Error> {
        again(self.settings, &self.cache.repository, what, request).await
    }

    fn nonsense(&self, what: &str) -> Error {
        let endpoint = &self.settings.endpoint;
        Error::HubUnavailable(format!("{endpoint} does not answer like a hub: {what} of {}", self.cache.repository))
    }
}

/// Makes a request until it succeeds, its trouble will not pass, or it was made often enough.
pub(super) async fn again<T>(
    settings: &HubSettings,
    repository: &str,
    what: &str,
    mut request: impl AsyncFnMut() -> Result<T, Trouble>,
) -> Result<T, Error> {
    let mut delay = settings.retry_delay;
    let mut tries = 1;
    loop {
        let (text, pause) = match request().await {
            Ok(answer) => return Ok(answer),
            Err(Trouble::Lasting(error)) => return Err(error),
            Err(Trouble::Passing { text, pause }) => (text, pause),
        };
        if tries == TRIES {
            return Err(Error::HubUnavailable(format!(
                "{} did not deliver {what} of {repository} in {TRIES} tries: {text}",
                settings.endpoint
            )));
        }
        tracing::warn!(hub.repository = %repository, hub.what = %what, hub.tries = tries, reason = %text, "hub request failed");
        tokio::time::sleep(pause.unwrap_or(delay).min(LONGEST_PAUSE)).await;
        delay *= 2;
        tries += 1;
    }
}

/// A file of a listing; what has no usable hash cannot be stored and does not exist for us.
fn entry(listed: RepoTreeEntry) -> Option<Entry> {
    let RepoTreeEntry::File { path, size, oid, lfs, .. } = listed else { return None };
    // As the hub's own ETag: the hash of the content for what lies in large file storage, else git's.
    let (hash, size) = match lfs {
        Some(lfs) => (lfs.sha256.or(Some(oid))?, lfs.size.unwrap_or(size)),
        None => (oid, size),
    };
    is_hash(&hash).then_some(Entry { path, size, hash })
}
