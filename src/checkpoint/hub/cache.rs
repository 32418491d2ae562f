//! The cache folder: `<kind>--<owner>--<name>/{refs/<revision>, blobs/<content>, snapshots/<commit>/<file>}`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::checkpoint::Error;

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Models,
    Datasets,
}

/// One revision of one repository in the cache.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    pub(super) kind: Kind,
    pub(super) repository: String,
    pub(super) revision: String,
}

/// A name that stays in its folder.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

/// A commit, as the hub writes it.
pub(super) fn is_commit(name: &str) -> bool {
    name.len() == 40 && is_hash(name)
}

/// A content hash: SHA-256 of a large file, git's SHA-1 of a small one.
pub(super) fn is_hash(name: &str) -> bool {
    matches!(name.len(), 40 | 64) && name.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

impl Cache {
    pub(super) fn new(root: &Path, kind: Kind, repository: &str, revision: &str) -> Result<Self, Error> {
        let named = repository.split('/').count() == 2 && repository.split('/').all(is_plain);
        if !named || !revision.split('/').all(is_plain) {
            return Err(Error::NotFound(format!("'{repository}@{revision}' names no revision of a hub repository")));
        }
        Ok(Self { root: root.to_owned(), kind, repository: repository.to_owned(), revision: revision.to_owned() })
    }

    /// `owner` and `name`.
    pub(super) fn owner_and_name(&self) -> (&str, &str) {
        self.repository.split_once('/').unwrap_or_default()
    }

    fn folder(&self) -> PathBuf {
        self.root.join(self.folder_name())
    }

    fn folder_name(&self) -> String {
        let kind = match self.kind {
            Kind::Models => "models",
            Kind::Datasets => "datasets",
        };
        format!("{kind}--{}", self.repository.replace('/', "--"))
    }

    /// Why offline work cannot go on, and what helps.
    pub(super) fn missing(&self, what: &str) -> String {
        let Self { repository, revision, root, .. } = self;
        format!(
            "{what} of {repository}@{revision} is not in the cache {} and the hub is switched off (HF_HUB_OFFLINE): \
             run once with the hub switched on, or copy the cache from a machine that has it",
            root.display()
        )
    }

    /// The commit that the revision was when it was last fetched whole.
    pub(super) fn commit(&self) -> Option<String> {
        if is_commit(&self.revision) {
            return Some(self.revision.clone());
        }
        let text = fs::read_to_string(self.folder().join("refs").join(&self.revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Records what the revision is now, once all of it is here.
    pub(super) fn remember(&self, commit: &str) -> Result<(), Error> {
        if is_commit(&self.revision) {
            return Ok(());
        }
        let path = self.folder().join("refs").join(&self.revision);
        make_parent(&path)?;
        let fresh = path.with_added_extension(format!("{}.new", std::process::id()));
        fs::write(&fresh, commit).map_err(Error::io(&fresh))?;
        fs::rename(&fresh, &path).map_err(Error::io(&path))
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    /// One of a commit's files.
    pub(super) fn file(&self, commit: &str, file: &str) -> PathBuf {
        self.snapshot(commit).join(file)
    }

    /// Where content lies, by its hash.
    pub(super) fn blob(&self, hash: &str) -> PathBuf {
        self.folder().join("blobs").join(hash)
    }

    /// The lock under which content is written.
    pub(super) fn lock(&self, hash: &str) -> PathBuf {
        self.root.join(".locks").join(self.folder_name()).join(format!("{hash}.lock"))
    }

    /// Lets a commit's file show the content with this hash.
    pub(super) fn link(&self, commit: &str, file: &str, hash: &str) -> Result<(), Error> {
        let path = self.file(commit, file);
        make_parent(&path)?;
        // From snapshots/<commit>/<folders of the file> up to the repository's folder.
        let up = "../".repeat(2 + file.matches('/').count());
        let fresh = path.with_added_extension(format!("{}.new", std::process::id()));
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(&fresh)(error)),
            _ => {}
        }
        std::os::unix::fs::symlink(format!("{up}blobs/{hash}"), &fresh).map_err(Error::io(&fresh))?;
        fs::rename(&fresh, &path).map_err(Error::io(&path))
    }
}

/// Makes the folders above a file.
pub(super) fn make_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(Error::io(parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_file_of_any_depth_shows_its_content() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path(), Kind::Datasets, "org/name", "refs/convert/parquet").unwrap();
        let (commit, hash) = ("c".repeat(40), "0".repeat(64));
        make_parent(&cache.blob(&hash)).unwrap();
        fs::write(cache.blob(&hash), "content").unwrap();
        for file in ["a", "folder/b", "folder/folder/c", "a"] {
            cache.link(&commit, file, &hash).unwrap();
            assert_eq!(fs::read_to_string(cache.file(&commit, file)).unwrap(), "content", "{file}");
        }
        assert_eq!(cache.commit(), None);
        cache.remember(&commit).unwrap();
        assert_eq!(cache.commit(), Some(commit));
    }

    #[test]
    fn names_that_leave_the_cache_are_refused() {
        for (repository, revision) in
            [("org/..", "main"), ("org", "main"), ("a/b/c", "main"), ("a/b", "../x"), ("a/b", "")]
        {
            assert!(
                Cache::new(Path::new("/c"), Kind::Models, repository, revision).is_err(),
                "{repository}@{revision}"
            );
        }
        for hash in ["", "../../etc/passwd", "ABC", &"g".repeat(64), &"a".repeat(41)] {
            assert!(!is_hash(hash), "{hash}");
        }
    }
}
