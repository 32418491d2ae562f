//! A copy of the database while it is in use, and SQLite's own check of one.

use std::{fs, io, path::Path};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{SqliteStore, open};
use crate::queue::{StoreError, is_postgres};

const COPY: &str = "VACUUM INTO ?1";
const CHECK: &str = "PRAGMA integrity_check";
/// What the check says of a sound database.
const SOUND: &str = "ok";

impl SqliteStore {
    /// Copies the database at `location` to a new file, as it stands at one moment, while others read and write it. The
    /// file appears when it is whole, checked and on the disk; the database itself is not changed, not even to a newer
    /// schema.
    ///
    /// # Errors
    /// [`StoreError::Missing`] without a database, [`StoreError::BackupExists`] when `target` is there, and
    /// [`StoreError::Damaged`] when the copy does not pass SQLite's integrity check.
    pub async fn backup(location: &str, target: &Path) -> Result<(), StoreError> {
        if is_postgres(location) {
            return Err(StoreError::NotAFile);
        }
        let options = open::existing(location)?;
        if target.exists() {
            return Err(StoreError::BackupExists(target.to_owned()));
        }
        let mut beside = target.as_os_str().to_owned();
        beside.push(".part");
        let beside = Path::new(&beside);
        remove(beside)?;
        let done = copy(options, beside).await.and_then(|()| put(beside, target).map_err(refused(target)));
        if done.is_err() {
            remove(beside)?;
        }
        done
    }

    /// Has SQLite read every page.
    pub(super) async fn sound(&self) -> Result<(), StoreError> {
        sound(&sqlx::query_scalar::<_, String>(CHECK).fetch_all(&self.readers).await?)
    }
}

async fn copy(options: SqliteConnectOptions, beside: &Path) -> Result<(), StoreError> {
    let mut source = SqliteConnection::connect_with(&options).await?;
    let name = beside.to_string_lossy().into_owned();
    sqlx::query(COPY).bind(name).execute(&mut source).await?;
    source.close().await?;
    let copy = SqliteConnectOptions::new().filename(beside).create_if_missing(false).read_only(true);
    let mut copy = SqliteConnection::connect_with(&copy).await?;
    sound(&sqlx::query_scalar::<_, String>(CHECK).fetch_all(&mut copy).await?)?;
    Ok(copy.close().await?)
}

fn sound(said: &[String]) -> Result<(), StoreError> {
    if said == [SOUND] { Ok(()) } else { Err(StoreError::Damaged(said.join("; "))) }
}

/// Gives the finished copy its name, on the disk.
fn put(beside: &Path, target: &Path) -> io::Result<()> {
    fs::File::open(beside)?.sync_all()?;
    fs::rename(beside, target)?;
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused(path)(error)),
        _ => Ok(()),
    }
}

fn refused(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Backup { path: path.to_owned(), source }
}
