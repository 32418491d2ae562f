//! Names under a folder of the user's, and what they may reach.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Error, Snapshot};

/// Finds `name` (a relative path without `..`) below `root`, following links only while they stay inside.
/// `None` when there is nothing.
///
/// # Errors
/// [`Error::NotFound`] when the name or a link leads out of `root`.
pub fn find_below(root: &Path, name: &str) -> Result<Option<PathBuf>, Error> {
    let outside =
        || Error::NotFound(format!("'{name}' leads out of {}: links may only point inside it", root.display()));
    let relative = Path::new(name);
    if !relative.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
        return Err(outside());
    }
    let (Some(root), Some(found)) = (canonical(root)?, canonical(&root.join(relative))?) else { return Ok(None) };
    if found.starts_with(&root) { Ok(Some(found)) } else { Err(outside()) }
}

/// `None` for what does not exist, a link to nothing included.
fn canonical(path: &Path) -> Result<Option<PathBuf>, Error> {
    match path.canonicalize() {
        Ok(path) => Ok(Some(path)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// The model folder `file:NAME`.
///
/// # Errors
/// [`Error::NotFound`] says where it was looked for, or which of its files leads out of the models folder.
pub fn resolve_local(models_dir: &Path, name: &str) -> Result<Snapshot, Error> {
    let missing = || {
        let path = models_dir.join(name);
        Error::NotFound(format!("file:{name} was not found: there is no folder {}", path.display()))
    };
    let folder = find_below(models_dir, name)?.filter(|folder| folder.is_dir()).ok_or_else(missing)?;
    for entry in fs::read_dir(&folder).map_err(Error::io(&folder))? {
        let entry = entry.map_err(Error::io(&folder))?;
        let path = entry.path();
        if !entry.file_type().map_err(Error::io(&path))?.is_symlink() {
            continue;
        }
        let file = format!("{name}/{}", entry.file_name().to_string_lossy());
        if find_below(models_dir, &file)?.is_none() {
            return Err(Error::NotFound(format!("{file} is a link to nothing")));
        }
    }
    Ok(Snapshot { folder, revision: None })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn complaint(models: &Path, name: &str) -> String {
        resolve_local(models, name).unwrap_err().to_string()
    }

    #[test]
    fn links_out_of_the_models_folder_are_refused_by_name() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let models = tempfile::tempdir().unwrap();
        symlink(outside.path(), models.path().join("linked")).unwrap();
        assert!(complaint(models.path(), "linked").contains("leads out"));
        let model = models.path().join("model");
        fs::create_dir(&model).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            assert!(resolve_local(models.path(), "model").is_ok());
            symlink(outside.path().join("secret"), model.join(file)).unwrap();
            let complaint = complaint(models.path(), "model");
            assert!(complaint.contains("leads out") && complaint.contains(file), "{complaint}");
            fs::remove_file(model.join(file)).unwrap();
        }
    }

    #[test]
    fn links_that_stay_inside_are_followed() {
        let models = tempfile::tempdir().unwrap();
        fs::create_dir_all(models.path().join("deep/model")).unwrap();
        fs::write(models.path().join("shared.json"), "x").unwrap();
        symlink("../../shared.json", models.path().join("deep/model/config.json")).unwrap();
        symlink("deep/model", models.path().join("alias")).unwrap();
        let found = resolve_local(models.path(), "alias").unwrap();
        assert_eq!(found.folder, models.path().canonicalize().unwrap().join("deep/model"));
        assert_eq!(found.revision, None);
    }

    #[test]
    fn what_is_missing_is_named_with_its_place() {
        let models = tempfile::tempdir().unwrap();
        fs::write(models.path().join("file"), "x").unwrap();
        for name in ["nothing", "file", "file/inside"] {
            assert!(complaint(models.path(), name).contains(models.path().join(name).to_str().unwrap()), "{name}");
        }
        assert!(complaint(Path::new("/nonexistent"), "model").contains("/nonexistent/model"));
        for name in ["../x", "/etc", "a/../../b"] {
            assert!(complaint(models.path(), name).contains("leads out"), "{name}");
        }
    }
}
