//! Content that comes over the wire and lies in the cache once it is whole.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};

use super::{Session, Trouble, line::Step};
use crate::checkpoint::{
    Error,
    hub::{cache::make_parent, listing::Entry},
};

/// Bytes between two reports of progress.
const REPORT_EVERY: u64 = 1 << 20;
/// Pause between two looks at a lock that another process holds.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
const BUFFER: usize = 1 << 20;

impl Session<'_> {
    /// Brings files of a commit into the cache, in this order; what is there already is not fetched again.
    pub(in super::super) async fn download(&self, commit: &str, files: &[Entry]) -> Result<(), Error> {
        let mut step = Step { done: 0, total: files.iter().map(|file| file.size).sum(), file: String::new() };
        for file in files {
            step.file.clone_from(&file.path);
            self.line.tell(step.clone());
            if !is_whole(&self.cache.file(commit, &file.path), file) {
                self.fetch(commit, file, &step).await?;
                self.cache.link(commit, &file.path, &file.hash)?;
            }
            step.done += file.size;
            self.line.tell(step.clone());
        }
        Ok(())
    }

    /// Fetches a file's content under its lock.
    async fn fetch(&self, commit: &str, file: &Entry, step: &Step) -> Result<(), Error> {
        let blob = self.cache.blob(&file.hash);
        make_parent(&blob)?;
        // Held until the content is whole; another process that wants it waits and then finds it.
        let _lock = lock(&self.cache.lock(&file.hash)).await?;
        if is_whole(&blob, file) {
            return Ok(());
        }
        let part = blob.with_added_extension("incomplete");
        self.again(&file.path, async || {
            let result = self.transfer(commit, file, &part, step).await;
            // What broke off is gone on with; what came and is wrong is not.
            if matches!(&result, Ok(false)) {
                fs::remove_file(&part).map_err(Error::io(&part))?;
                return Err(Trouble::passing("what came is not what the hub announced (length or SHA-256)"));
            }
            result.map(|_| ())
        })
        .await?;
        fs::rename(&part, &blob).map_err(Error::io(&blob))
    }

    /// One transfer into `part`; `false` when what is there now is not the file and never will be.
    async fn transfer(&self, commit: &str, file: &Entry, part: &Path, step: &Step) -> Result<bool, Trouble> {
        let mut part = Part::open(part, file)?;
        let mut reported = part.length;
        if part.length < file.size {
            let mut bytes = self.open(commit, file, part.length..file.size).await?;
            while let Some(chunk) = bytes.try_next().await.map_err(|error| self.trouble(error))? {
                let chunk = chunk.as_ref();
                if part.length + chunk.len() as u64 > file.size {
                    return Ok(false);
                }
                part.append(chunk)?;
                if part.length >= reported + REPORT_EVERY {
                    reported = part.length;
                    self.line.tell(Step { done: step.done + part.length, ..step.clone() });
                }
            }
        }
        if part.length < file.size {
            return Err(Trouble::passing(format!("the transfer ended after {} of {} bytes", part.length, file.size)));
        }
        part.finish(file)
    }
}

/// Content that is not whole yet.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    hash: Sha256,
}

impl Part {
    /// Goes on with what is there if its hash will show whether that was right, else starts anew.
    fn open(path: &Path, entry: &Entry) -> Result<Self, Error> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let mut part =
            Self { path: path.to_owned(), file: file.map_err(Error::io(path))?, length: 0, hash: Sha256::new() };
        let present = part.file.metadata().map_err(Error::io(path))?.len();
        if entry.sha256().is_none() || present > entry.size {
            part.file.set_len(0).map_err(Error::io(path))?;
            return Ok(part);
        }
        part.read_present().map_err(Error::io(path))?;
        Ok(part)
    }

    fn read_present(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = self.file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            self.hash.update(&buffer[..read]);
            self.length += read as u64;
        }
        self.file.seek(SeekFrom::Start(self.length)).map(|_| ())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io(&self.path))?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Whether the content is right; it is on disk then.
    fn finish(self, entry: &Entry) -> Result<bool, Trouble> {
        self.file.sync_all().map_err(Error::io(&self.path))?;
        let hash = self.hash.finalize();
        Ok(entry.sha256().is_none_or(|announced| announced == hexadecimal(&hash)))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn is_whole(path: &Path, file: &Entry) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == file.size)
}

/// Waits for a lock without blocking the thread, so that a cancel is heard.
async fn lock(path: &Path) -> Result<File, Error> {
    make_parent(path)?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(Error::io(path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(Error::io(path)(error)),
        }
    }
}
