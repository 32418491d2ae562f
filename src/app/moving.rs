//! `graspd export` and `graspd import`: from a database of one kind to one of the other.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Write},
    path::Path,
};

use super::{AppError, runtime};
use crate::{
    cli::{self, SUCCEEDED},
    config::{self, StoreArgs},
    queue::{self, Moved, StoreError},
};

/// Writes what is kept in the database to a new file.
pub(super) fn export(args: &StoreArgs, path: &Path) -> Result<u8, AppError> {
    let (_, database) = config::kept(args)?;
    let refused = |source| StoreError::Backup { path: path.to_owned(), source };
    let file = File::create_new(path).map_err(refused)?;
    let mut writer = BufWriter::new(&file);
    let written = runtime()?.block_on(queue::export(&database, &mut writer));
    let written = written.and_then(|moved| {
        writer.flush().and_then(|()| file.sync_all()).map_err(refused)?;
        Ok(moved)
    });
    if written.is_err() {
        // What is there of it is no export; where it cannot be removed, its missing end says so.
        let _ = std::fs::remove_file(path);
    }
    tell(&written?)
}

/// Fills an empty database from such a file.
pub(super) fn import(args: &StoreArgs, path: &Path) -> Result<u8, AppError> {
    let (_, database) = config::kept(args)?;
    let file = File::open(path).map_err(|source| StoreError::Backup { path: path.to_owned(), source })?;
    tell(&runtime()?.block_on(queue::import(&database, BufReader::new(file)))?)
}

fn tell(moved: &Moved) -> Result<u8, AppError> {
    let rows: Vec<_> = moved.iter().map(|(table, rows)| format!("{rows} {}", table.replace('_', " "))).collect();
    cli::print(&format!("{}\n", rows.join(", ")))?;
    Ok(SUCCEEDED)
}
