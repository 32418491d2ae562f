//! A job without a server: the pipeline in this process, its progress drawn, its folder put in place at the end.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    cli::Bar,
    job::{Decision, Failure, JobSpec, Progress, Report},
    pipeline,
};

/// A one-shot job made no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum OneShotError {
    /// The folder to write holds something already.
    #[error("{}: exists and is not empty; --out must name an empty folder or none", .0.display())]
    Occupied(PathBuf),
    /// The folder to write has no name of its own.
    #[error("{}: --out must name a folder", .0.display())]
    Nameless(PathBuf),
    /// Another process works on the same folder.
    #[error("{}: another graspd compress is at work on it", .0.display())]
    Busy(PathBuf),
    /// The file system refused.
    #[error("{path}: {source}")]
    Folder {
        /// What was touched.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Ctrl-C; the next run goes on from the last checkpoint.
    #[error("stopped; the same command goes on from here")]
    Cancelled,
    /// The job itself failed.
    #[error("{0}")]
    Failed(Failure),
}

fn folder_error(path: &Path) -> impl FnOnce(io::Error) -> OneShotError {
    move |source| OneShotError::Folder { path: path.to_owned(), source }
}

/// Runs `spec` and leaves the finished checkpoint in `out`; `cancelled` ends it at the next boundary.
///
/// # Errors
/// [`OneShotError`]; `out` is then as it was, and where another run may succeed checkpoints wait beside it.
pub fn compress(
    spec: &JobSpec,
    settings: &pipeline::Settings,
    out: &Path,
    cancelled: Arc<AtomicBool>,
) -> Result<Report, OneShotError> {
    let place = Place::prepare(out)?;
    let observer = Drawn { bar: Bar::default(), cancelled };
    let context = pipeline::Context { work: &place.work, output: &place.output, settings, observer: &observer };
    let result = pipeline::run(spec, &context);
    observer.bar.end();
    match result.map_err(|error| error.failure()) {
        Ok(report) => place.finish().map(|()| report),
        Err(None) => Err(OneShotError::Cancelled),
        Err(Some(failure)) => {
            if failure.decision == Decision::GiveUp {
                // The same job would fail the same way: nothing to go on from.
                remove(&place.aside)?;
            }
            Err(OneShotError::Failed(failure))
        }
    }
}

pub(super) struct Drawn {
    pub(super) bar: Bar,
    pub(super) cancelled: Arc<AtomicBool>,
}

impl pipeline::Observer for Drawn {
    fn progress(&self, progress: Progress) {
        self.bar.show(&progress);
    }

    fn step_finished(&self) {}

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// The folders of a one-shot job, all beside `out` so that the last step is a rename.
struct Place {
    out: PathBuf,
    /// Holds the two below and the lock.
    aside: PathBuf,
    work: PathBuf,
    output: PathBuf,
    /// Held until the job ends, by whatever way.
    lock: File,
}

impl Place {
    fn prepare(out: &Path) -> Result<Self, OneShotError> {
        let out = std::path::absolute(out).map_err(folder_error(out))?;
        refuse_occupied(&out)?;
        let name = out.file_name().ok_or_else(|| OneShotError::Nameless(out.clone()))?;
        let aside = out.with_file_name(format!(".{}.graspd", name.to_string_lossy()));
        let (work, output) = (aside.join("work"), aside.join("output"));
        fs::create_dir_all(&work).map_err(folder_error(&work))?;
        let lock_path = aside.join("lock");
        let lock = File::create(&lock_path).map_err(folder_error(&lock_path))?;
        lock.try_lock().map_err(|_| OneShotError::Busy(out.clone()))?;
        remove(&output)?;
        fs::create_dir(&output).map_err(folder_error(&output))?;
        Ok(Self { out, aside, work, output, lock })
    }

    /// Puts the finished folder in place and removes what was needed on the way.
    fn finish(self) -> Result<(), OneShotError> {
        sync(&self.output).map_err(folder_error(&self.output))?;
        // Renaming a folder onto an empty one replaces it; onto any other it fails.
        fs::rename(&self.output, &self.out).map_err(folder_error(&self.out))?;
        drop(self.lock);
        remove(&self.aside)
    }
}

fn refuse_occupied(out: &Path) -> Result<(), OneShotError> {
    match fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(OneShotError::Occupied(out.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(OneShotError::Folder { path: out.to_owned(), source }),
    }
}

fn remove(folder: &Path) -> Result<(), OneShotError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(folder_error(folder)(error)),
        _ => Ok(()),
    }
}

/// Brings every file of a folder to the disk, so that the rename never shows a torn one.
fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync(&path)?;
        } else {
            File::open(&path)?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_folder_appears_whole_and_nothing_else_stays() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("out");
        fs::create_dir(&out).unwrap();
        let place = Place::prepare(&out).unwrap();
        fs::write(place.output.join("model.safetensors"), "weights").unwrap();
        place.finish().unwrap();
        assert_eq!(fs::read_to_string(out.join("model.safetensors")).unwrap(), "weights");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("precious"), "").unwrap();
        assert!(matches!(Place::prepare(parent.path()), Err(OneShotError::Occupied(_))));
        assert!(matches!(Place::prepare(&parent.path().join("precious")), Err(OneShotError::Folder { .. })));
        assert!(matches!(Place::prepare(Path::new("/")), Err(OneShotError::Occupied(_))));
    }

    #[test]
    fn work_is_kept_for_the_next_run_and_locked_against_another() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("out");
        let place = Place::prepare(&out).unwrap();
        assert!(matches!(Place::prepare(&out), Err(OneShotError::Busy(_))));
        fs::write(place.work.join("checkpoint"), "").unwrap();
        fs::write(place.output.join("half"), "").unwrap();
        drop(place);
        let again = Place::prepare(&out).unwrap();
        assert!(again.work.join("checkpoint").exists());
        assert_eq!(fs::read_dir(&again.output).unwrap().count(), 0);
        assert!(!out.exists());
    }
}
