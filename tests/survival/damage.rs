//! Files that are not as they were written.

use std::{fs, path::PathBuf};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    setting,
    site::{Site, job},
};

/// Damaged checkpoints of the short form.
const DAMAGES: u64 = 3;

/// The files of a job's checkpoints, once there are some.
async fn checkpoints(site: &Site, id: &str) -> Vec<PathBuf> {
    let work = site.data().join("work").join(id);
    site.until("a checkpoint", async |_| {
        let finished = fs::read_dir(&work).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let mut files = Vec::new();
        for path in finished.filter(|path| path.extension().is_none_or(|end| end == "json")) {
            match path.is_dir() {
                true => files.extend(fs::read_dir(&path).ok()?.filter_map(|entry| Some(entry.ok()?.path()))),
                false if path.ends_with("spec.json") => {}
                false => files.push(path),
            }
        }
        files.sort();
        files.iter().any(|file| file.ends_with("model.safetensors")).then_some(files)
    })
    .await
}

#[tokio::test]
async fn a_damaged_checkpoint_is_made_again() {
    let seed = setting("GRASPD_TEST_SEED", std::process::id().into());
    let mut random = StdRng::seed_from_u64(seed);
    let mut site = Site::start().await;
    let whole = site.submit("whole").await;
    assert_eq!(site.finish(&whole).await["status"], "succeeded");
    let expected = site.sha256(&whole, "model.safetensors").await;
    for round in 0..setting("GRASPD_TEST_DAMAGES", DAMAGES) {
        let id = site.submit(&format!("damage {round}")).await;
        let files = checkpoints(&site, &id).await;
        site.kill_server(true);
        // The job may have got further meanwhile, or to its end.
        let files: Vec<_> = files.iter().filter(|file| file.exists()).collect();
        if !files.is_empty() {
            let file = files[random.random_range(0..files.len())];
            let mut bytes = fs::read(file).unwrap();
            let place = random.random_range(0..bytes.len());
            match random.random_range(0..2) {
                0 => bytes[place] ^= 1 << random.random_range(0..8),
                _ => bytes.truncate(place),
            }
            fs::write(file, bytes).unwrap();
        }
        site.ensure_running().await;
        let done = site.finish(&id).await;
        assert_eq!(done["status"], "succeeded", "seed {seed}: {files:?} {done}");
        assert_eq!(site.sha256(&id, "model.safetensors").await, expected, "seed {seed}: {files:?}");
    }
    site.stop_and_sweep().await;
    site.verify();
}

#[tokio::test]
async fn a_database_that_is_none_or_anothers_is_refused_and_left_alone() {
    let mut site = Site::start().await;
    let (_, done) = site.see_through("kept", &job()).await;
    assert_eq!(done["status"], "succeeded");
    site.terminate();
    let database = site.data().join("graspd.db");
    let sound = fs::read(&database).unwrap();
    let mut damaged = sound.clone();
    damaged[100..4096].fill(0xff);
    let foreign = fs::read(foreign_database(&site).await).unwrap();
    for (content, said) in [
        (b"this is no database, but somebody's text file\n".repeat(200), "is no SQLite database"),
        (damaged, "is damaged"),
        (foreign, "belongs to another program"),
    ] {
        fs::write(&database, &content).unwrap();
        let (code, log) = site.serve_in_vain();
        let last = log.lines().last().unwrap_or_default();
        assert!(code == 1 && last.contains(said) && last.contains("graspd.db"), "{said}: {code} {last}");
        assert_eq!(fs::read(&database).unwrap(), content, "what is not ours is not touched");
    }
    fs::write(&database, sound).unwrap();
    site.ensure_running().await;
    site.stop_and_sweep().await;
    site.verify();
}

/// A database that something else made, and that has a table of a name we use too.
async fn foreign_database(site: &Site) -> PathBuf {
    use sqlx::{Connection, sqlite::SqliteConnectOptions};
    let path = site.data().join("foreign.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("CREATE TABLE jobs (name TEXT)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    path
}
