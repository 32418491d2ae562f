//! Whether anybody works on a data folder. The server and its children hold a lock on one file of it, and the system
//! lets go of the lock whatever they die of: who then comes and is alone knows at once that nobody's lease is worth
//! anything, instead of waiting until it lapses.

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

const FILE: &str = "in-use.lock";

/// How long processes that were killed may take to be gone: who starts within that time must not think that they live.
const DYING: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// This process at work, until it is dropped or dies.
#[derive(Debug)]
pub struct Presence {
    _lock: File,
}

impl Presence {
    /// Joins those who work on `data_dir`; `true` beside it when nobody did. Where somebody does, it takes half a second to
    /// be sure.
    ///
    /// # Errors
    /// What the system says of the file. A file system without locks says that too.
    pub fn enter(data_dir: &Path) -> io::Result<(Self, bool)> {
        let file = open(data_dir)?;
        let begin = Instant::now();
        let alone = loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break true,
                Err(rustix::io::Errno::WOULDBLOCK) if begin.elapsed() >= DYING => break false,
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOOK_EVERY),
                Err(error) => return Err(error.into()),
            }
        };
        flock(&file, FlockOperation::LockShared)?;
        Ok((Self { _lock: file }, alone))
    }

    /// Joins without asking who else is there.
    ///
    /// # Errors
    /// Those of [`Self::enter`].
    pub fn join(data_dir: &Path) -> io::Result<Self> {
        let file = open(data_dir)?;
        flock(&file, FlockOperation::LockShared)?;
        Ok(Self { _lock: file })
    }
}

fn open(data_dir: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(data_dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_first_is_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (first, alone) = Presence::enter(folder.path()).unwrap();
        assert!(alone);
        let child = Presence::join(folder.path()).unwrap();
        drop(first);
        let (second, alone) = Presence::enter(folder.path()).unwrap();
        assert!(!alone, "a child of the first is left");
        drop((child, second));
        let (dying, alone) = Presence::enter(folder.path()).unwrap();
        assert!(alone);
        let end = std::thread::spawn(move || {
            std::thread::sleep(DYING / 5);
            drop(dying);
        });
        assert!(Presence::enter(folder.path()).unwrap().1, "the last one was on its way out");
        end.join().unwrap();
    }
}
