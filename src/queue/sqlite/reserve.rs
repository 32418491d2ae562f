//! Room beside the database for what must go on when its disk is full: ending, cancelling and deleting jobs.
//!
//! A file holds the room. It is given up when a write finds the disk full, and new jobs are refused until it can
//! be held again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

/// Enough for thousands of small changes: the write-ahead log is folded into the database every 4 MB.
const BYTES: u64 = 8 * 1024 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(super) fn beside(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push(".reserve");
        Self { path: path.into() }
    }

    /// Holds the room, as far as there is any; whether it is held.
    pub(super) fn hold(&self) -> bool {
        if fs::metadata(&self.path).is_ok_and(|reserve| reserve.len() >= BYTES) {
            return true;
        }
        let held = self.fill();
        if let Err(error) = &held {
            tracing::warn!(%error, path = %self.path.display(), "there is no room left beside the database");
            self.release();
        }
        held.is_ok()
    }

    fn fill(&self) -> io::Result<()> {
        let mut file: File = OpenOptions::new().create(true).write(true).truncate(true).open(&self.path)?;
        // Where the file system cannot set blocks aside, zeros take them.
        if fallocate(&file, FallocateFlags::empty(), 0, BYTES) == Err(Errno::OPNOTSUPP) {
            io::copy(&mut io::repeat(0).take(BYTES), &mut file)?;
        }
        file.sync_all()
    }

    /// Gives the room up; whether there was any.
    pub(super) fn release(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_held_once_and_given_up_once() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::beside(&folder.path().join("graspd.db"));
        assert!(!reserve.release());
        assert!(reserve.hold() && reserve.hold());
        assert!(folder.path().join("graspd.db.reserve").exists());
        assert!(reserve.release() && !reserve.release());
        let nowhere = Reserve::beside(&folder.path().join("missing/graspd.db"));
        assert!(!nowhere.hold());
    }
}
