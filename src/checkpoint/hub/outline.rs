//! What a model of the hub looks like, without its numbers: its configuration, and the heads of its weight files.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use futures_util::TryStreamExt as _;

use super::{
    HubSettings, ObserveDownload,
    cache::{Cache, Kind},
    listing::{self, CONFIG, Entry, INDEX},
    transfer::{self, Session, Trouble},
};
use crate::checkpoint::{Error, Snapshot, weights::LONGEST_HEADER};

/// Bytes that hold the whole header of most files.
const USUAL_HEADER: u64 = 256 << 10;
/// The length of a header, in front of it.
const PREFIX: u64 = 8;

/// Fills `folder` with the configuration of a model, its index, and weight files that have their header and their
/// length but hold no numbers: they are sparse and take no room. Of the weights themselves nothing is fetched.
///
/// # Errors
/// As [`super::fetch_model`].
pub fn outline_model(
    repository: &str,
    revision: Option<&str>,
    settings: &HubSettings,
    folder: &Path,
    observe: ObserveDownload<'_>,
) -> Result<Snapshot, Error> {
    let cache = Cache::new(&settings.cache_dir, Kind::Models, repository, revision.unwrap_or("main"))?;
    transfer::run(observe, async |line| {
        let session = Session::new(settings, &cache, line)?;
        let commit = session.commit().await?;
        let listed = session.list_models(&commit).await?;
        let wanted = listing::wanted_files(repository, &listed)?;
        let config = wanted.files.iter().find(|file| file.path == CONFIG).cloned();
        let plain: Vec<Entry> = config.into_iter().chain(wanted.index.clone()).collect();
        session.download(&commit, &plain).await?;
        for file in &plain {
            let (from, to) = (cache.file(&commit, &file.path), folder.join(&file.path));
            fs::copy(&from, &to).map_err(Error::io(&from))?;
        }
        let weights = match wanted.index {
            Some(_) => listing::shards(&cache.file(&commit, INDEX), &listed)?,
            None => wanted.files.into_iter().filter(|file| file.path == listing::SINGLE).collect(),
        };
        for file in &weights {
            write_hollow(&folder.join(&file.path), &session.header(&commit, file).await?, file.size)?;
        }
        Ok(Snapshot { folder: folder.to_owned(), revision: Some(commit) })
    })
}

/// A file that begins with `header` and is `length` bytes long.
fn write_hollow(path: &Path, header: &[u8], length: u64) -> Result<(), Error> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(header)?;
        file.set_len(length)
    };
    write().map_err(Error::io(path))
}

impl Session<'_> {
    /// The header of a safetensors file, with its length in front.
    async fn header(&self, commit: &str, file: &Entry) -> Result<Vec<u8>, Error> {
        let mut bytes = self.head(commit, file, USUAL_HEADER).await?;
        let prefix = bytes.first_chunk().copied().map(u64::from_le_bytes);
        let length = prefix.filter(|&length| length <= LONGEST_HEADER && length + PREFIX <= file.size);
        let Some(length) = length else {
            return Err(Error::invalid(&file.path, "is no safetensors file: the length of its header is wrong"));
        };
        if length + PREFIX > bytes.len() as u64 {
            bytes = self.head(commit, file, length + PREFIX).await?;
        }
        bytes.truncate((length + PREFIX) as usize);
        Ok(bytes)
    }

    /// The first bytes of a file, `wanted` of them or all there are.
    async fn head(&self, commit: &str, file: &Entry, wanted: u64) -> Result<Vec<u8>, Error> {
        let wanted = wanted.min(file.size);
        self.again(&file.path, async || {
            let mut stream = self.open(commit, file, 0..wanted).await?;
            let mut bytes = Vec::new();
            // A server that knows no ranges goes on: what is too much is not waited for.
            while (bytes.len() as u64) < wanted {
                match stream.try_next().await.map_err(|error| self.trouble(error))? {
                    Some(chunk) => bytes.extend_from_slice(chunk.as_ref()),
                    None => return Err(Trouble::passing(format!("it ended after {} of {wanted} bytes", bytes.len()))),
                }
            }
            bytes.truncate(wanted as usize);
            Ok(bytes)
        })
        .await
    }
}
