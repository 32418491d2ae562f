//! What a job has on this machine besides its artifacts: a work folder and a log.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    job::{Failure, FailureCode, JobId, JobSpec},
    queue::Claim,
    worker::Settings,
};

/// Name of the spec in a work folder.
const SPEC: &str = "spec.json";

/// The folders and files of one attempt.
#[derive(Debug)]
pub(super) struct Folder {
    /// Checkpoints between attempts, and the spec.
    pub(super) work: PathBuf,
    /// What the child's log is appended to.
    pub(super) log: PathBuf,
}

impl Folder {
    /// Makes the folders of an attempt and writes the job's spec for its child to read.
    pub(super) fn prepare(settings: &Settings, claim: &Claim) -> Result<Self, Failure> {
        let folder = Self { work: work_folder(settings, claim.id), log: log_file(settings, claim.id) };
        fs::create_dir_all(&folder.work).map_err(|error| refused(&folder.work, &error))?;
        fs::create_dir_all(&settings.log_dir).map_err(|error| refused(&settings.log_dir, &error))?;
        let spec = folder.work.join(SPEC);
        write_spec(&spec, &claim.spec).map_err(|error| refused(&spec, &error))?;
        Ok(folder)
    }
}

/// Reads the spec that [`Folder::prepare`] left in a work folder.
pub(super) fn read_spec(work: &Path) -> io::Result<JobSpec> {
    Ok(serde_json::from_slice(&fs::read(work.join(SPEC))?)?)
}

fn write_spec(path: &Path, spec: &JobSpec) -> io::Result<()> {
    // Written anew by every attempt before its child starts, so a torn write is never read.
    fs::write(path, serde_json::to_vec_pretty(spec)?)
}

/// Where a job's work lies.
pub(super) fn work_folder(settings: &Settings, id: JobId) -> PathBuf {
    settings.work_dir.join(id.to_string())
}

fn log_file(settings: &Settings, id: JobId) -> PathBuf {
    settings.log_dir.join(format!("{id}.log"))
}

/// Removes the work of a job that is over.
pub(super) fn remove_work(settings: &Settings, id: JobId) {
    let path = work_folder(settings, id);
    match fs::remove_dir_all(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, path = %path.display(), "a work folder could not be removed"),
    }
}

/// The jobs that have a work folder.
pub(super) fn jobs_with_work(settings: &Settings) -> Vec<JobId> {
    let Ok(entries) = fs::read_dir(&settings.work_dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The failure of a job whose folders or process the system refused.
pub(super) fn refused(path: &Path, error: &io::Error) -> Failure {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let code = if full { FailureCode::DiskFull } else { FailureCode::Internal };
    Failure::retry(code, format!("{}: {error}", path.display()))
}
