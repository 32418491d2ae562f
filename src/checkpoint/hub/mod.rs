//! Snapshots of hub repositories, in the cache folder that other tools share.
//!
//! Only configuration, tokenizer and safetensors files are fetched, never code. hf-hub speaks the protocol; the files
//! are written here, because its own cache neither looks at the status of a download nor at its length, and joins the
//! server's words to paths. Whatever the server names (commit, content hash, shards) is checked before it becomes part
//! of a path, and a file is visible only once its length and, where the hub knows it, its SHA-256 are right.

mod cache;
mod listing;
mod outline;
mod transfer;
mod upload;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use cache::{Cache, Kind};
use listing::{CONFIG, INDEX};
pub use outline::outline_model;
use transfer::Session;
pub use upload::{Upload, UploadFile, Uploaded, upload};

use super::{Error, Snapshot};

/// How to reach the hub. Nothing of it is ever read from the environment here.
#[derive(Clone)]
pub struct HubSettings {
    /// `https://huggingface.co`, or a mirror.
    pub endpoint: String,
    /// The hub's cache folder, shared with other tools.
    pub cache_dir: PathBuf,
    /// Access token for private and gated repositories.
    pub token: Option<String>,
    /// Never touch the network; use what the cache holds.
    pub offline: bool,
    /// Pause before a request is tried again the first time; it doubles with each further try.
    pub retry_delay: Duration,
}

impl fmt::Debug for HubSettings {
    // By hand, because the token must never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("retry_delay", &self.retry_delay)
            .finish()
    }
}

/// Told (bytes done, bytes in all, file at work) at least every second; `false` ends the download.
pub type ObserveDownload<'a> = &'a mut dyn FnMut(u64, u64, &str) -> bool;

/// Brings a model repository into the cache, `main` unless a branch, tag or commit is named.
///
/// # Errors
/// [`Error::NotFound`] for a repository or revision that does not exist or may not be read (and what to do about it),
/// [`Error::Unsupported`] for one without safetensors, [`Error::Invalid`] for a shard index that names anything but
/// plain files of the repository, [`Error::HubUnavailable`] when the hub does not deliver, [`Error::Cancelled`].
pub fn fetch_model(
    repository: &str,
    revision: Option<&str>,
    settings: &HubSettings,
    observe: ObserveDownload<'_>,
) -> Result<Snapshot, Error> {
    let revision = revision.unwrap_or("main");
    let cache = Cache::new(&settings.cache_dir, Kind::Models, repository, revision)?;
    if settings.offline {
        return cached_model(&cache);
    }
    transfer::run(observe, async |line| {
        let session = Session::new(settings, &cache, line)?;
        let commit = session.commit().await?;
        let listed = session.list_models(&commit).await?;
        let wanted = listing::wanted_files(repository, &listed)?;
        let mut files = wanted.files;
        if let Some(index) = wanted.index {
            session.download(&commit, &[index]).await?;
            files.extend(listing::shards(&cache.file(&commit, INDEX), &listed)?);
        }
        session.download(&commit, &files).await?;
        cache.remember(&commit)?;
        Ok(Snapshot { folder: cache.snapshot(&commit), revision: Some(commit) })
    })
}

/// Brings one file of a data set repository into the cache; offline, finds it there.
///
/// # Errors
/// As [`fetch_model`], with [`Error::DatasetNotFound`] for what does not exist or may not be read.
pub fn fetch_dataset_file(
    repository: &str,
    revision: &str,
    file: &str,
    settings: &HubSettings,
    observe: ObserveDownload<'_>,
) -> Result<PathBuf, Error> {
    let cache = Cache::new(&settings.cache_dir, Kind::Datasets, repository, revision)?;
    if !file.split('/').all(cache::is_plain) {
        return Err(Error::DatasetNotFound(format!("'{file}' is no name of a file in a repository")));
    }
    if settings.offline {
        let path = cache.commit().map(|commit| cache.file(&commit, file)).filter(|path| path.is_file());
        return path.ok_or_else(|| Error::DatasetNotFound(cache.missing(file)));
    }
    let fetched = transfer::run(observe, async |line| {
        let session = Session::new(settings, &cache, line)?;
        let commit = session.commit().await?;
        let entry = session.find(&commit, file).await?;
        session.download(&commit, &[entry]).await?;
        cache.remember(&commit)?;
        Ok(cache.file(&commit, file))
    });
    fetched.map_err(|error| match error {
        Error::NotFound(text) => Error::DatasetNotFound(text),
        other => other,
    })
}

/// What the cache holds of a model, if that is all of it.
fn cached_model(cache: &Cache) -> Result<Snapshot, Error> {
    let absent = |file: &str| Error::NotFound(cache.missing(file));
    let commit = cache.commit().ok_or_else(|| absent("the model"))?;
    let folder = cache.snapshot(&commit);
    let needed = |file: &str| if folder.join(file).is_file() { Ok(()) } else { Err(absent(file)) };
    needed(CONFIG)?;
    if folder.join(INDEX).is_file() {
        listing::shard_names(Path::new(&folder.join(INDEX)))?.iter().try_for_each(|shard| needed(shard))?;
    } else {
        needed(listing::SINGLE)?;
    }
    Ok(Snapshot { folder, revision: Some(commit) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let settings = HubSettings {
            endpoint: "e".into(),
            cache_dir: "c".into(),
            token: Some("hf_secret".into()),
            offline: true,
            retry_delay: Duration::ZERO,
        };
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
