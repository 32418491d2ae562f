//! Names under a folder of the user's, and what they may reach.

use std::path::{Path, PathBuf};

use super::{Error, Snapshot};

/// Finds `name` (a relative path without `..`) below `root`, following links only while they stay inside.
/// `None` when there is nothing.
///
/// # Errors
/// [`Error::NotFound`] when the name leads out of `root`.
pub fn find_below(root: &Path, name: &str) -> Result<Option<PathBuf>, Error> {
    let Ok(root) = root.canonicalize() else { return Ok(None) };
    let Ok(found) = root.join(name).canonicalize() else { return Ok(None) };
    if found.starts_with(&root) {
        return Ok(Some(found));
    }
    Err(Error::NotFound(format!("file:{name} leads out of {}: links may only point inside it", root.display())))
}

/// The model folder `file:NAME`.
///
/// # Errors
/// [`Error::NotFound`] says where it was looked for, or which of its files leads out of the models folder.
pub fn resolve_local(models_dir: &Path, name: &str) -> Result<Snapshot, Error> {
    let missing = || {
        Error::NotFound(format!("file:{name} was not found: there is no folder {}", models_dir.join(name).display()))
    };
    let folder = find_below(models_dir, name)?.filter(|folder| folder.is_dir()).ok_or_else(missing)?;
    for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
        let entry = entry.map_err(Error::io(&folder))?;
        if entry.file_type().map_err(Error::io(&entry.path()))?.is_symlink() {
            let file = format!("{name}/{}", entry.file_name().to_string_lossy());
            find_below(models_dir, &file)?;
        }
    }
    Ok(Snapshot { folder, revision: None })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_out_of_the_models_folder_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        let models = tempfile::tempdir().unwrap();
        symlink(outside.path(), models.path().join("folder")).unwrap();
        std::fs::create_dir(models.path().join("model")).unwrap();
        assert!(resolve_local(models.path(), "model").is_ok());
        symlink(outside.path().join("secret"), models.path().join("model/config.json")).unwrap();
        for name in ["folder", "model"] {
            assert!(resolve_local(models.path(), name).unwrap_err().to_string().contains("leads out"), "{name}");
        }
        assert!(resolve_local(models.path(), "nothing").unwrap_err().to_string().contains("no folder"));
    }
}
