//! What a job has finished, for another machine to go on from: `checkpoints/<job>/<attempt>/…`.
//!
//! A checkpoint is a list of files, written after all of them; a file that an earlier list has already is not sent again.
//! Of the lists of a job the newest of the highest attempt counts. One by a worker that had lost its lease is as good as
//! any other: it holds steps of the same job that are finished.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Bucket, encoded, metadata};
use crate::{
    artifact::{ArtifactError, checksums::io_error},
    job::JobId,
};

/// The file of a work folder that says what is finished; it is written last.
const STATE: &str = "state.json";
/// What is being written has this at the end of its name.
const UNFINISHED: &str = ".part";
/// Where a work folder is held fast while it is sent.
const SNAPSHOT: &str = ".sending";
/// Which attempt a work folder is of.
const ATTEMPT: &str = "attempt";
/// How often a folder that changes meanwhile is held fast anew.
const TRIES: usize = 3;

pub(super) fn of_job(job: JobId) -> String {
    format!("checkpoints/{job}")
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Where the content is.
    key: String,
    bytes: u64,
    sha256: String,
    /// Which file it was, so that it is not sent again: inode, and when its content last changed.
    identity: (u64, i64, i64),
}

/// The files of a checkpoint by their names in the work folder.
type List = BTreeMap<String, Kept>;

/// What one attempt has sent so far.
#[derive(Debug, Default)]
pub struct Sent {
    list: List,
    lists: u32,
}

/// Sends what is finished in `work` since the last time; `false` when that is nothing.
pub(super) async fn send(
    bucket: &Bucket,
    job: JobId,
    attempt: u32,
    work: &Path,
    sent: &mut Sent,
) -> Result<bool, ArtifactError> {
    let (folder, earlier) = (work.to_owned(), sent.list.get(STATE).map(|kept| kept.identity));
    let held = tokio::task::spawn_blocking(move || hold(&folder, earlier)).await;
    let Some(files) = held.map_err(|error| io_error(work)(std::io::Error::other(error)))?? else { return Ok(false) };
    let mut list = List::new();
    for (name, identity) in files {
        let path = work.join(SNAPSHOT).join(&name);
        let bytes = metadata(&path)?.len();
        let known = sent.list.get(&name).filter(|kept| kept.identity == identity && kept.bytes == bytes).cloned();
        let kept = if let Some(kept) = known {
            kept
        } else {
            let key = format!("{}/{attempt}/{}/{}", of_job(job), sent.lists, encoded(&name));
            let sha256 = bucket.upload(&path, bytes, &key).await?;
            Kept { key, bytes, sha256, identity }
        };
        list.insert(name, kept);
    }
    let text = serde_json::to_vec(&list).map_err(|error| io_error(work)(error.into()))?;
    bucket.put(&format!("{}/{attempt}/{:08}.json", of_job(job), sent.lists), text).await?;
    sent.list = list;
    sent.lists += 1;
    remove(&work.join(SNAPSHOT))?;
    Ok(true)
}

type Identity = (u64, i64, i64);

fn identity(path: &Path) -> Result<Identity, ArtifactError> {
    let metadata = metadata(path)?;
    Ok((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

/// Links all finished files of a work folder into a folder of its own, as they belong to one state; `None` when there is
/// no state, or only the one that was sent.
fn hold(work: &Path, earlier: Option<Identity>) -> Result<Option<BTreeMap<String, Identity>>, ArtifactError> {
    let (state, snapshot) = (work.join(STATE), work.join(SNAPSHOT));
    for _ in 0..TRIES {
        if !state.exists() {
            return Ok(None);
        }
        let begin = identity(&state)?;
        if Some(begin) == earlier {
            return Ok(None);
        }
        remove(&snapshot)?;
        let mut files = BTreeMap::new();
        let linked = link(work, &snapshot, "", &mut files);
        // A step that ended meanwhile may have taken away what the state before it names.
        if linked.is_ok() && identity(&state)? == begin {
            return Ok(Some(files));
        }
    }
    // The worker is faster; it will be waited for at the next time.
    remove(&snapshot)?;
    Ok(None)
}

fn link(from: &Path, to: &Path, prefix: &str, files: &mut BTreeMap<String, Identity>) -> Result<(), ArtifactError> {
    fs::create_dir_all(to).map_err(io_error(to))?;
    for entry in fs::read_dir(from).map_err(io_error(from))? {
        let entry = entry.map_err(io_error(from))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.ends_with(UNFINISHED) || (prefix.is_empty() && (name == SNAPSHOT || name == ATTEMPT)) {
            continue;
        }
        let (path, place) = (entry.path(), to.join(&name));
        if entry.file_type().map_err(io_error(&path))?.is_dir() {
            link(&path, &place, &format!("{prefix}{name}/"), files)?;
        } else {
            fs::hard_link(&path, &place).map_err(io_error(&path))?;
            files.insert(format!("{prefix}{name}"), identity(&place)?);
        }
    }
    Ok(())
}

/// Fills the work folder of an attempt with the newest checkpoint there is, unless the folder itself is as new; whether
/// it did.
pub(super) async fn restore(bucket: &Bucket, job: JobId, attempt: u32, work: &Path) -> Result<bool, ArtifactError> {
    let objects = bucket.below(&of_job(job)).await?;
    let lists = objects.iter().filter_map(|object| {
        let (of, name) = object.key.strip_prefix(&format!("{}/", of_job(job)))?.split_once('/')?;
        let number: u32 = name.strip_suffix(".json").filter(|number| !number.contains('/'))?.parse().ok()?;
        Some((of.parse::<u32>().ok()?, number, object.key.clone()))
    });
    let newest = lists.max();
    let here: u32 = fs::read_to_string(work.join(ATTEMPT)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let restored = match newest {
        Some((of, _, key)) if of > here => fetch(bucket, &key, work).await?,
        _ => false,
    };
    fs::create_dir_all(work).map_err(io_error(work))?;
    let mark = work.join(ATTEMPT);
    fs::write(&mark, attempt.to_string()).map_err(io_error(&mark))?;
    Ok(restored)
}

async fn fetch(bucket: &Bucket, key: &str, work: &Path) -> Result<bool, ArtifactError> {
    let Some(text) = bucket.get(key).await? else { return Ok(false) };
    let list: List = serde_json::from_slice(&text)
        .map_err(|error| ArtifactError::Corrupt { path: key.into(), what: error.to_string() })?;
    remove(work)?;
    // The state last: a folder without it is one where nothing is finished.
    let (state, rest): (Vec<_>, Vec<_>) = list.iter().partition(|(name, _)| *name == STATE);
    for (name, kept) in rest.into_iter().chain(state) {
        let place = inside(work, name)
            .ok_or_else(|| ArtifactError::Corrupt { path: key.into(), what: format!("names '{name}'") })?;
        bucket.download(&kept.key, &kept.sha256, &place).await?;
    }
    Ok(true)
}

/// A path below a folder; `None` for a name that would lead out of it.
fn inside(folder: &Path, name: &str) -> Option<PathBuf> {
    name.split('/').all(|part| !matches!(part, "" | "." | "..")).then(|| folder.join(name))
}

fn remove(path: &Path) -> Result<(), ArtifactError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    }
}
