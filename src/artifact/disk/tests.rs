use std::fmt::Write;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::clock::{Ids, RandomIds};

/// Writes the files and a SHA256SUMS that fits them.
fn fill(folder: &Path, files: &[(&str, &str)]) {
    let mut sums = String::new();
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        writeln!(sums, "{}  {name}", checksums::hexadecimal(&Sha256::digest(content))).unwrap();
    }
    fs::write(folder.join(checksums::CHECKSUMS), sums).unwrap();
}

fn store() -> (TempDir, DiskStore, JobId) {
    let folder = TempDir::new().unwrap();
    let store = DiskStore::open(folder.path()).unwrap();
    (folder, store, RandomIds.job_id())
}

#[tokio::test]
async fn a_published_folder_is_listed_with_its_subfolders() {
    let (_folder, store, job) = store();
    let staged = store.stage(job, 1).await.unwrap();
    fill(&staged, &[("report.json", "{}"), ("sub/weights", "0123")]);
    assert_eq!(store.list(job).await.unwrap(), None, "nothing is visible before it is published");

    store.publish(job, 1).await.unwrap();
    let listed = store.list(job).await.unwrap().unwrap();
    let names: Vec<_> = listed.iter().map(|artifact| (artifact.name.as_str(), artifact.bytes)).collect();
    assert_eq!(names, [("SHA256SUMS", 156), ("report.json", 2), ("sub/weights", 4)]);
    let (path, artifact) = store.locate(job, "sub/weights").await.unwrap().unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "0123");
    assert_eq!(artifact, listed[2]);
    assert!(!staged.exists());
}

#[tokio::test]
async fn publishing_again_changes_nothing() {
    let (_folder, store, job) = store();
    fill(&store.stage(job, 1).await.unwrap(), &[("a", "first")]);
    store.publish(job, 1).await.unwrap();
    store.publish(job, 1).await.unwrap();
    fill(&store.stage(job, 2).await.unwrap(), &[("a", "second")]);
    store.publish(job, 2).await.unwrap();
    let (path, _) = store.locate(job, "a").await.unwrap().unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "first");
}

#[tokio::test]
async fn what_does_not_fit_its_checksums_is_not_published() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("changed", |folder| fs::write(folder.join("a"), "b").unwrap()),
        ("missing", |folder| fs::remove_file(folder.join("a")).unwrap()),
        ("unlisted", |folder| fs::write(folder.join("extra"), "").unwrap()),
        ("no list", |folder| fs::remove_file(folder.join("SHA256SUMS")).unwrap()),
        ("a link", |folder| {
            fs::rename(folder.join("a"), folder.parent().unwrap().join("a")).unwrap();
            std::os::unix::fs::symlink(folder.parent().unwrap().join("a"), folder.join("a")).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let (_folder, store, job) = store();
        let staged = store.stage(job, 1).await.unwrap();
        fill(&staged, &[("a", "a")]);
        damage(&staged);
        assert!(store.publish(job, 1).await.is_err(), "{what}");
        assert_eq!(store.list(job).await.unwrap(), None, "{what}");
    }
}

#[tokio::test]
async fn names_that_are_not_listed_are_not_found() {
    let (folder, store, job) = store();
    fs::write(folder.path().join("secret"), "").unwrap();
    fill(&store.stage(job, 1).await.unwrap(), &[("a", "a")]);
    store.publish(job, 1).await.unwrap();
    for name in ["../../secret", "./a", "a/", "/etc/passwd", "", "b"] {
        assert_eq!(store.locate(job, name).await.unwrap(), None, "{name}");
    }
    assert_eq!(store.locate(RandomIds.job_id(), "a").await.unwrap(), None);
}

#[tokio::test]
async fn staging_empties_earlier_attempts_and_spares_later_ones() {
    let (_folder, store, job) = store();
    let first = store.stage(job, 1).await.unwrap();
    fs::write(first.join("half"), "").unwrap();
    let third = store.stage(job, 3).await.unwrap();
    assert!(!first.exists());
    let stale = store.stage(job, 2).await.unwrap();
    assert!(third.exists() && stale.exists());
    fs::write(third.join("half"), "").unwrap();
    assert_eq!(fs::read_dir(store.stage(job, 3).await.unwrap()).unwrap().count(), 0);
    store.discard(job).await.unwrap();
    store.discard(job).await.unwrap();
    assert!(!third.exists());
}
