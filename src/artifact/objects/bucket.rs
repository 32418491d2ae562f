//! Objects by key: what of the store's interface is used, with every content checked.

use std::{fmt, io, ops::Range, path::Path as FilePath, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutPayload,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    buffered::BufWriter,
    parse_url_opts,
    path::Path,
    signer::Signer,
};
use reqwest::{Method, Url};
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
};

use crate::artifact::{
    ArtifactError,
    checksums::{hexadecimal, io_error},
};

/// Bytes of one part of a large upload; S3 takes 10,000 of them.
const PART: usize = 16 << 20;
/// Parts of one upload that are under way at once.
const PARTS_AT_ONCE: usize = 4;
const CHUNK: usize = 1 << 20;
/// How long a request may take from its first to its last byte, one part at the most.
const PATIENCE: Duration = Duration::from_mins(2);

/// A bucket, and the prefix in it below which everything lies.
#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    signer: Option<Arc<dyn Signer>>,
    prefix: Path,
}

impl fmt::Debug for Bucket {
    // Without the store's own words, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// An object that was found.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// Its key, below the bucket's prefix.
    pub(super) key: String,
    pub(super) bytes: u64,
}

fn refused(key: &str) -> impl FnOnce(object_store::Error) -> ArtifactError {
    move |source| ArtifactError::Objects { key: key.to_owned(), source }
}

fn corrupt(key: &str, what: String) -> ArtifactError {
    ArtifactError::Corrupt { path: key.into(), what }
}

impl Bucket {
    /// The bucket at `url`, such as `s3://bucket/prefix` or `file:///folder`; `options` are the store's own, by the names
    /// of their environment variables. Nothing is asked of the store yet.
    ///
    /// # Errors
    /// [`ArtifactError::Objects`] for a scheme that this build does not know, or settings that are incomplete.
    pub fn open(url: &str, options: &[(String, String)]) -> Result<Self, ArtifactError> {
        let invalid =
            |source: String| refused("")(object_store::Error::Generic { store: "objects", source: source.into() });
        let parsed = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
        let (scheme, prefix) = ObjectStoreScheme::parse(&parsed).map_err(|error| invalid(error.to_string()))?;
        if matches!(scheme, ObjectStoreScheme::AmazonS3) {
            let mut builder = AmazonS3Builder::new().with_client_options(ClientOptions::new().with_timeout(PATIENCE));
            for (name, value) in options {
                if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                    builder = builder.with_config(key, value);
                }
            }
            let store = Arc::new(builder.with_url(url).build().map_err(refused(""))?);
            return Ok(Self { signer: Some(Arc::clone(&store) as Arc<dyn Signer>), store, prefix });
        }
        let options = options.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
        let (store, prefix) = parse_url_opts(&parsed, options).map_err(refused(""))?;
        Ok(Self { store: Arc::from(store), signer: None, prefix })
    }

    fn path(&self, key: &str) -> Path {
        let inside = Path::parse(key).unwrap_or_else(|_| Path::from(key));
        self.prefix.parts().chain(inside.parts()).collect()
    }

    /// Uploads the first `bytes` of a file, in parts where they are many, and reads them back: the store has them, with
    /// this SHA-256.
    pub(super) async fn upload(&self, from: &FilePath, bytes: u64, key: &str) -> Result<String, ArtifactError> {
        let sent = self.send(from, bytes, key).await?;
        let kept = self.hash(key).await?;
        if kept != sent {
            return Err(corrupt(key, format!("has SHA-256 {kept} in the object store, but {sent} was sent")));
        }
        Ok(sent)
    }

    async fn send(&self, from: &FilePath, bytes: u64, key: &str) -> Result<String, ArtifactError> {
        let mut file = File::open(from).await.map_err(io_error(from))?;
        let mut writer =
            BufWriter::with_capacity(Arc::clone(&self.store), self.path(key), PART).with_max_concurrency(PARTS_AT_ONCE);
        let written = async {
            let (mut hasher, mut left, mut chunk) = (Sha256::new(), bytes, vec![0; CHUNK]);
            while left > 0 {
                let most = chunk.len().min(usize::try_from(left).unwrap_or(CHUNK));
                let read = file.read(&mut chunk[..most]).await?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                hasher.update(&chunk[..read]);
                writer.write_all(&chunk[..read]).await?;
                left -= read as u64;
            }
            io::Result::Ok(hexadecimal(&hasher.finalize()))
        }
        .await;
        if written.is_err() {
            // Parts that were sent would be kept, and paid for.
            let _ = writer.abort().await;
        }
        let sha256 = written.map_err(io_error(from))?;
        // Where the end fails, the writer has removed the parts by itself: to abort it once more would be a panic.
        writer.shutdown().await.map_err(io_error(from))?;
        Ok(sha256)
    }

    /// Reads an object and hashes it.
    pub(super) async fn hash(&self, key: &str) -> Result<String, ArtifactError> {
        let mut content = self.read(key, None).await?;
        let mut hasher = Sha256::new();
        while let Some(chunk) = content.try_next().await.map_err(io_error(FilePath::new(key)))? {
            hasher.update(&chunk);
        }
        Ok(hexadecimal(&hasher.finalize()))
    }

    /// Fetches an object into a new file, which gets its name when its content is the wanted one.
    pub(super) async fn download(&self, key: &str, sha256: &str, to: &FilePath) -> Result<(), ArtifactError> {
        let mut beside = to.as_os_str().to_owned();
        beside.push(".part");
        let beside = FilePath::new(&beside);
        if let Some(folder) = to.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(io_error(folder))?;
        }
        let mut content = self.read(key, None).await?;
        let mut file = File::create(beside).await.map_err(io_error(beside))?;
        let mut hasher = Sha256::new();
        while let Some(chunk) = content.try_next().await.map_err(io_error(FilePath::new(key)))? {
            hasher.update(&chunk);
            file.write_all(&chunk).await.map_err(io_error(beside))?;
        }
        file.sync_all().await.map_err(io_error(beside))?;
        let found = hexadecimal(&hasher.finalize());
        if found != sha256 {
            return Err(corrupt(key, format!("has SHA-256 {found} in the object store, not {sha256}")));
        }
        tokio::fs::rename(beside, to).await.map_err(io_error(to))
    }

    /// The content of an object, or a range of it, as it comes.
    pub(in crate::artifact) async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, ArtifactError> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let found = self.store.get_opts(&self.path(key), options).await.map_err(refused(key))?;
        Ok(found.into_stream().map_err(io::Error::other).boxed())
    }

    /// A small object, if it is there.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Bytes>, ArtifactError> {
        match self.store.get(&self.path(key)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(refused(key)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(refused(key)(error)),
        }
    }

    /// A small range of an object.
    pub(super) async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, ArtifactError> {
        self.store.get_range(&self.path(key), range).await.map(Vec::from).map_err(refused(key))
    }

    /// Writes a small object, all of it or nothing.
    pub(super) async fn put(&self, key: &str, content: Vec<u8>) -> Result<(), ArtifactError> {
        self.store.put(&self.path(key), PutPayload::from(content)).await.map(drop).map_err(refused(key))
    }

    /// Everything below a prefix, in the order of the keys.
    pub(super) async fn below(&self, prefix: &str) -> Result<Vec<Object>, ArtifactError> {
        let listed = self.store.list(Some(&self.path(prefix)));
        let found: Vec<ObjectMeta> = listed.try_collect().await.map_err(refused(prefix))?;
        let mut objects: Vec<_> = found.into_iter().filter_map(|meta| self.object(&meta)).collect();
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(objects)
    }

    fn object(&self, meta: &ObjectMeta) -> Option<Object> {
        let inside: Path = meta.location.prefix_match(&self.prefix)?.collect();
        Some(Object { key: inside.as_ref().to_owned(), bytes: meta.size })
    }

    /// Removes objects; one that is gone already is no mistake.
    pub(super) async fn remove(&self, keys: &[String]) -> Result<(), ArtifactError> {
        let paths = stream::iter(keys.iter().map(|key| Ok(self.path(key))).collect::<Vec<_>>()).boxed();
        let mut removed = self.store.delete_stream(paths);
        while let Some(result) = removed.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(refused("")(error)),
            }
        }
        Ok(())
    }

    /// Removes everything below a prefix.
    pub(super) async fn remove_below(&self, prefix: &str) -> Result<(), ArtifactError> {
        let keys: Vec<_> = self.below(prefix).await?.into_iter().map(|object| object.key).collect();
        self.remove(&keys).await
    }

    /// A URL that anybody may fetch the object from for a while, where the store can make one.
    pub(in crate::artifact) async fn presigned(
        &self,
        key: &str,
        valid: Duration,
    ) -> Result<Option<String>, ArtifactError> {
        let Some(signer) = &self.signer else { return Ok(None) };
        let url = signer.signed_url(Method::GET, &self.path(key), valid).await.map_err(refused(key))?;
        Ok(Some(url.into()))
    }
}
