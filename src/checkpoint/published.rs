//! The checkpoints that jobs have published on this machine.

use std::path::{Path, PathBuf};

use super::{Error, Snapshot};
use crate::job::{JobId, spec::ExportFormat};

/// The checkpoint `job:ID` below the folder of published folders: the factored one where there are two.
///
/// # Errors
/// [`Error::NotFound`] when the job's files are gone, or never held a checkpoint.
pub fn resolve_published(published_dir: &Path, id: JobId) -> Result<Snapshot, Error> {
    let published = published_dir.join(id.to_string());
    let places = [published.clone(), published.join(ExportFormat::Factored.as_str())];
    let is_checkpoint = |folder: &PathBuf| folder.join("config.json").is_file();
    let what = match published.is_dir() {
        true => "has published no checkpoint",
        false => "has no files here: it has not succeeded, or it was deleted",
    };
    let found = places.into_iter().find(is_checkpoint);
    let folder = found.ok_or_else(|| Error::NotFound(format!("model: the job {id} {what}")))?;
    Ok(Snapshot { folder, revision: None })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_factored_checkpoint_of_two_is_taken_and_what_is_gone_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let id: JobId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let find = || resolve_published(dir.path(), id).map_err(|error| error.to_string());
        assert!(find().unwrap_err().contains("was deleted"));
        let published = dir.path().join(id.to_string());
        for format in ["dense", "factored"] {
            fs::create_dir_all(published.join(format)).unwrap();
        }
        assert!(find().unwrap_err().contains("no checkpoint"));
        fs::write(published.join("factored/config.json"), "{}").unwrap();
        assert_eq!(find().unwrap().folder, published.join("factored"));
        fs::write(published.join("config.json"), "{}").unwrap();
        assert_eq!(find().unwrap().folder, published);
    }
}
