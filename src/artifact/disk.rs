use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use super::{Artifact, ArtifactError, ArtifactStore};
use crate::job::JobId;

const CHECKSUMS: &str = "SHA256SUMS";

/// Published folders on this machine: `published/<job>`, and `staging/<job>/<attempt>` on the same file system.
#[derive(Clone, Debug)]
pub struct DiskStore {
    published: PathBuf,
    staging: PathBuf,
}

impl DiskStore {
    /// Uses (and creates) the folder `root`.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] when it cannot be created.
    pub fn open(root: &Path) -> Result<Self, ArtifactError> {
        let store = Self { published: root.join("published"), staging: root.join("staging") };
        for folder in [&store.published, &store.staging] {
            fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        Ok(store)
    }

    fn place(&self, job: JobId) -> PathBuf {
        self.published.join(job.to_string())
    }

    fn staged(&self, job: JobId, attempt: u32) -> PathBuf {
        self.staging.join(job.to_string()).join(attempt.to_string())
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ArtifactError {
    let path = path.to_owned();
    move |source| ArtifactError::Io { path, source }
}

fn corrupt(path: &Path, what: impl Into<String>) -> ArtifactError {
    ArtifactError::Corrupt { path: path.to_owned(), what: what.into() }
}

/// Runs file work off the async threads.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static) -> Result<T, ArtifactError> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ArtifactError::Io { path: PathBuf::new(), source: io::Error::other(error) }),
    }
}

#[async_trait]
impl ArtifactStore for DiskStore {
    async fn stage(&self, job: JobId, attempt: u32) -> Result<PathBuf, ArtifactError> {
        let folder = self.staged(job, attempt);
        on_disk(move || {
            remove(&folder)?;
            fs::create_dir_all(&folder).map_err(failed(&folder))?;
            Ok(folder)
        })
        .await
    }

    async fn publish(&self, job: JobId, attempt: u32) -> Result<(), ArtifactError> {
        let (staged, place) = (self.staged(job, attempt), self.place(job));
        on_disk(move || publish(&staged, &place)).await
    }

    async fn discard(&self, job: JobId) -> Result<(), ArtifactError> {
        let folder = self.staging.join(job.to_string());
        on_disk(move || remove(&folder)).await
    }

    async fn list(&self, job: JobId) -> Result<Option<Vec<Artifact>>, ArtifactError> {
        let place = self.place(job);
        on_disk(move || if place.is_dir() { read_folder(&place).map(Some) } else { Ok(None) }).await
    }

    async fn locate(&self, job: JobId, name: &str) -> Result<Option<(PathBuf, Artifact)>, ArtifactError> {
        let Some(artifacts) = self.list(job).await? else { return Ok(None) };
        // Only listed names become paths.
        let found = artifacts.into_iter().find(|artifact| artifact.name == name);
        Ok(found.map(|artifact| (self.place(job).join(&artifact.name), artifact)))
    }
}

fn remove(folder: &Path) -> Result<(), ArtifactError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(folder)(error)),
        _ => Ok(()),
    }
}

/// Checks every file against its checksum, forces all to disk, then renames.
fn publish(staged: &Path, place: &Path) -> Result<(), ArtifactError> {
    if place.is_dir() {
        return Ok(());
    }
    for artifact in read_folder(staged)? {
        let path = staged.join(&artifact.name);
        if artifact.name != CHECKSUMS && sha256(&path)? != artifact.sha256 {
            return Err(corrupt(&path, "does not fit its checksum"));
        }
        sync(&path)?;
        for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(staged)) {
            sync(folder)?;
        }
    }
    fs::rename(staged, place).map_err(failed(place))?;
    place.parent().map_or(Ok(()), sync)
}

fn sync(path: &Path) -> Result<(), ArtifactError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(failed(path))
}

/// The files that SHA256SUMS names, and SHA256SUMS itself, sorted by name.
fn read_folder(folder: &Path) -> Result<Vec<Artifact>, ArtifactError> {
    let sums = folder.join(CHECKSUMS);
    let text = fs::read_to_string(&sums).map_err(failed(&sums))?;
    let mut artifacts = Vec::new();
    for line in text.lines() {
        let entry = line.split_once("  ").filter(|(hash, name)| is_hash(hash) && is_inside(name));
        let (hash, name) = entry.ok_or_else(|| corrupt(&sums, format!("has an unreadable line {line:?}")))?;
        artifacts.push(artifact(folder, name, hash.to_owned())?);
    }
    artifacts.push(artifact(folder, CHECKSUMS, sha256(&sums)?)?);
    artifacts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(artifacts)
}

fn artifact(folder: &Path, name: &str, sha256: String) -> Result<Artifact, ArtifactError> {
    let path = folder.join(name);
    let bytes = fs::metadata(&path).map_err(failed(&path))?.len();
    Ok(Artifact { name: name.to_owned(), bytes, sha256 })
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_inside(name: &str) -> bool {
    !name.is_empty() && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn sha256(path: &Path) -> Result<String, ArtifactError> {
    let mut file = File::open(path).map_err(failed(path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(failed(path))? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Ids as _, RandomIds};

    fn fill(folder: &Path) {
        fs::create_dir(folder.join("sub")).unwrap();
        fs::write(folder.join("sub/b"), "b").unwrap();
        fs::write(folder.join("a"), "a").unwrap();
        let line = |name: &str| format!("{}  {name}\n", sha256(&folder.join(name)).unwrap());
        fs::write(folder.join(CHECKSUMS), line("a") + &line("sub/b")).unwrap();
    }

    fn store() -> (tempfile::TempDir, DiskStore, JobId) {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::open(folder.path()).unwrap();
        (folder, store, RandomIds.job_id())
    }

    #[tokio::test]
    async fn what_is_published_is_listed_and_located() {
        let (_folder, store, job) = store();
        assert_eq!(store.list(job).await.unwrap(), None);
        fill(&store.stage(job, 1).await.unwrap());
        for _ in 0..2 {
            store.publish(job, 1).await.unwrap();
        }
        let names: Vec<String> = store.list(job).await.unwrap().unwrap().into_iter().map(|artifact| artifact.name).collect();
        assert_eq!(names, ["SHA256SUMS", "a", "sub/b"]);
        let (path, artifact) = store.locate(job, "sub/b").await.unwrap().unwrap();
        assert_eq!((fs::read_to_string(path).unwrap().as_str(), artifact.bytes), ("b", 1));
        for name in ["../a", "sub", "sub/../a", "", "/etc/passwd", "c"] {
            assert_eq!(store.locate(job, name).await.unwrap(), None, "{name}");
        }
    }

    #[tokio::test]
    async fn a_folder_that_does_not_fit_its_checksums_stays_hidden() {
        let (_folder, store, job) = store();
        let staged = store.stage(job, 1).await.unwrap();
        fill(&staged);
        fs::write(staged.join("a"), "changed").unwrap();
        assert!(store.publish(job, 1).await.is_err());
        fs::remove_file(staged.join("a")).unwrap();
        assert!(store.publish(job, 1).await.is_err());
        assert_eq!(store.list(job).await.unwrap(), None);
        store.discard(job).await.unwrap();
        assert!(!staged.exists());
    }

    #[tokio::test]
    async fn staging_again_forgets_what_an_attempt_left() {
        let (_folder, store, job) = store();
        fs::write(store.stage(job, 1).await.unwrap().join("x"), "x").unwrap();
        assert_eq!(fs::read_dir(store.stage(job, 1).await.unwrap()).unwrap().count(), 0);
    }
}
