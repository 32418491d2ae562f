//! Published folders, checkpoints and logs in a folder of objects and on S3.

use std::{fmt::Write, fs, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::TryStreamExt;
use graspd::{
    artifact::{ArtifactStore, Bucket, Content, Depot, LogPlace, ObjectArtifacts, Row, Rows, Sent},
    clock::{Ids, RandomIds},
    job::{JobId, JobSpec},
    queue::{Claim, JobStore, Outcome, RetryPolicy, SqliteStore},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::s3::S3;

const LEASE: Duration = Duration::from_mins(1);

struct RowsOf(SqliteStore);

#[async_trait]
impl Rows for RowsOf {
    async fn row(&self, job: JobId) -> Result<Option<Row>, String> {
        let record = self.0.get(job).await.map_err(|error| error.to_string())?;
        Ok(record.map(|record| Row { status: record.status, attempt: record.attempt }))
    }
}

/// A bucket, a database, and a machine.
struct Bench {
    folder: TempDir,
    bucket: Bucket,
    store: SqliteStore,
    artifacts: ObjectArtifacts,
}

impl Bench {
    async fn new(url: &str, options: &[(String, String)]) -> Self {
        let folder = TempDir::new().unwrap();
        let database = folder.path().join("graspd.db");
        let store = SqliteStore::open(database.to_str().unwrap(), RetryPolicy::default()).await.unwrap();
        let bucket = Bucket::open(url, options).unwrap();
        let rows = Arc::new(RowsOf(store.clone()));
        let artifacts = ObjectArtifacts::open(bucket.clone(), rows, &folder.path().join("machine"))
            .unwrap_or_else(|error| panic!("{error}"));
        Self { folder, bucket, store, artifacts }
    }

    async fn claim(&self) -> Claim {
        let spec = JobSpec::parse(&json!({"model": "file:any"})).unwrap();
        self.store.submit(RandomIds.job_id(), &spec).await.unwrap();
        self.store.claim("worker", LEASE).await.unwrap().unwrap()
    }

    async fn publish(&self, claim: &Claim, attempt: u32, content: &[u8]) {
        let staged = self.artifacts.stage(claim.id, attempt).await.unwrap();
        fs::create_dir(staged.join("sub")).unwrap();
        fs::write(staged.join("sub/a b.bin"), content).unwrap();
        fs::write(staged.join("empty"), "").unwrap();
        let sums = [("sub/a b.bin", content), ("empty", &b""[..])].map(|(name, content)| {
            let mut digits = String::new();
            for byte in Sha256::digest(content) {
                write!(digits, "{byte:02x}").unwrap();
            }
            format!("{digits}  {name}\n")
        });
        fs::write(staged.join("SHA256SUMS"), sums.concat()).unwrap();
        let bytes = self.artifacts.publish(claim.id, attempt).await.unwrap();
        assert!(bytes > content.len() as u64);
    }

    async fn read(&self, job: JobId, name: &str, range: std::ops::Range<u64>) -> Vec<u8> {
        let (content, _) = self.artifacts.open(job, name).await.unwrap().unwrap();
        let Content::Object(object) = content else { panic!("not an object") };
        let chunks: Vec<_> = object.read(range).await.unwrap().try_collect().await.unwrap();
        chunks.concat()
    }
}

async fn the_row_says_what_is_published(bench: &Bench) {
    let claim = bench.claim().await;
    // More than one part of an upload.
    let content: Vec<u8> = (0..(17_u32 << 20)).map(|number| (number % 251) as u8).collect();
    bench.publish(&claim, claim.attempt, &content).await;
    bench.publish(&claim, claim.attempt + 7, b"of somebody who is not the owner").await;
    assert_eq!(bench.artifacts.list(claim.id).await.unwrap(), None, "the job has not succeeded");
    bench.store.settle(&claim, &Outcome::Succeeded).await.unwrap();
    let names: Vec<_> =
        bench.artifacts.list(claim.id).await.unwrap().unwrap().into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["SHA256SUMS", "empty", "sub/a b.bin"]);
    assert_eq!(bench.read(claim.id, "sub/a b.bin", 5..9).await, content[5..9]);
    assert!(bench.artifacts.open(claim.id, "../x").await.unwrap().is_none());
    let (copy, file) = bench.artifacts.locate(claim.id, "sub/a b.bin").await.unwrap().unwrap();
    assert_eq!((fs::read(copy).unwrap(), file.bytes), (content.clone(), content.len() as u64));
    assert_eq!(bench.artifacts.verify(claim.id).await.unwrap().unwrap().len(), 3);
    assert_eq!(bench.artifacts.sweep().await.unwrap(), 3, "what the other attempt left");
    assert_eq!(bench.artifacts.sweep().await.unwrap(), 0);
    assert_eq!(bench.artifacts.verify(claim.id).await.unwrap().unwrap().len(), 3);
    bench.artifacts.remove(claim.id).await.unwrap();
    assert_eq!(bench.artifacts.list(claim.id).await.unwrap(), None);
    assert_eq!(bench.artifacts.published().await.unwrap(), []);
}

async fn a_checkpoint_is_whole_and_only_what_is_new_is_sent(bench: &Bench) {
    let depot = Depot::new(bench.bucket.clone());
    let job = RandomIds.job_id();
    let (here, there) = (bench.folder.path().join("here"), bench.folder.path().join("there"));
    let step = |folder: &Path, number: u32| {
        fs::create_dir_all(folder.join(format!("piece-{number}"))).unwrap();
        fs::write(folder.join(format!("piece-{number}/weights")), format!("weights {number}")).unwrap();
        fs::create_dir_all(folder.join("next.part")).unwrap();
        fs::write(folder.join("beside"), number.to_string()).unwrap();
        fs::rename(folder.join("beside"), folder.join("state.json")).unwrap();
    };
    assert!(!depot.restore_checkpoint(job, 1, &here).await.unwrap());
    let mut sent = Sent::default();
    assert!(!depot.send_checkpoint(job, 1, &here, &mut sent).await.unwrap(), "nothing is finished");
    for number in 1..=2 {
        step(&here, number);
        assert!(depot.send_checkpoint(job, 1, &here, &mut sent).await.unwrap());
        assert!(!depot.send_checkpoint(job, 1, &here, &mut sent).await.unwrap(), "nothing is new");
    }
    assert!(depot.restore_checkpoint(job, 2, &there).await.unwrap());
    let read = |name: &str| fs::read_to_string(there.join(name)).unwrap();
    assert_eq!(
        (read("state.json"), read("piece-1/weights"), read("piece-2/weights")),
        ("2".into(), "weights 1".into(), "weights 2".into())
    );
    assert!(!there.join("next.part").exists());
    // The first machine has the job again, after the second one got further.
    step(&there, 3);
    assert!(depot.send_checkpoint(job, 2, &there, &mut Sent::default()).await.unwrap());
    assert!(depot.restore_checkpoint(job, 3, &here).await.unwrap());
    assert!(here.join("piece-3/weights").exists());
    assert!(!depot.restore_checkpoint(job, 4, &here).await.unwrap(), "the folder is as new as any checkpoint");
}

async fn a_log_is_that_of_all_machines(bench: &Bench) {
    let depot = Depot::new(bench.bucket.clone());
    let (job, path) = (RandomIds.job_id(), bench.folder.path().join("log"));
    let mut place = LogPlace::default();
    assert_eq!(depot.read_log(job, &mut place).await.unwrap(), b"");
    fs::write(&path, "one\n").unwrap();
    depot.send_log(job, 1, &path, 0).await.unwrap();
    assert_eq!(depot.read_log(job, &mut place).await.unwrap(), b"one\n");
    fs::write(&path, "one\ntwo\n").unwrap();
    depot.send_log(job, 1, &path, 0).await.unwrap();
    depot.send_log(job, 10, &path, 4).await.unwrap();
    assert_eq!(depot.read_log(job, &mut place).await.unwrap(), b"two\n");
    assert_eq!(depot.read_log(job, &mut place).await.unwrap(), b"two\n");
    assert_eq!(depot.read_log(job, &mut place).await.unwrap(), b"");
}

async fn everything(bench: &Bench) {
    the_row_says_what_is_published(bench).await;
    a_checkpoint_is_whole_and_only_what_is_new_is_sent(bench).await;
    a_log_is_that_of_all_machines(bench).await;
}

#[tokio::test]
async fn objects_in_a_folder_do() {
    let folder = TempDir::new().unwrap();
    everything(&Bench::new(&format!("file://{}", folder.path().display()), &[]).await).await;
}

#[tokio::test]
async fn objects_on_s3_do() {
    let Some(server) = S3::start().await else { return };
    let url = format!("s3://{}/some/prefix", S3::BUCKET);
    let bench = Bench::new(&url, &server.environment()).await;
    everything(&bench).await;
    let claim = bench.claim().await;
    bench.publish(&claim, claim.attempt, b"content").await;
    bench.store.settle(&claim, &Outcome::Succeeded).await.unwrap();
    let (content, _) = bench.artifacts.open(claim.id, "sub/a b.bin").await.unwrap().unwrap();
    let Content::Object(object) = content else { panic!("not an object") };
    let url = object.presigned(Duration::from_mins(1)).await.unwrap().unwrap();
    assert_eq!(reqwest::get(url).await.unwrap().text().await.unwrap(), "content");
}
