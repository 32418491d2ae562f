//! Large files, by git's large file storage protocol: the hub says where each part goes, and what it has already.

use std::{
    collections::{BTreeMap, HashMap},
    io::SeekFrom,
    time::Duration,
};

use futures_util::{Stream, stream};
use reqwest::{Body, Method, header};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
};

use super::{BRANCH, UploadFile, Uploader, trouble};
use crate::checkpoint::{
    Error,
    hub::transfer::{Line, Step, Trouble},
};

const LFS_JSON: &str = "application/vnd.git-lfs+json";
const CHUNK: u64 = 1 << 20;
/// An upload slower than this is given up, in bytes a second.
const SLOWEST: u64 = 50_000;
const SHORTEST_TIMEOUT: u64 = 120;

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    #[serde(default)]
    actions: Actions,
    error: Option<ObjectError>,
}

#[derive(Deserialize)]
struct ObjectError {
    message: String,
}

/// Nothing is to be done with a file that the storage has.
#[derive(Default, Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: HashMap<String, String>,
}

/// A stretch of a file and where it goes.
struct Part<'a> {
    file: &'a UploadFile,
    url: &'a str,
    headers: &'a HashMap<String, String>,
    start: u64,
    length: u64,
}

impl Uploader<'_> {
    /// Brings the files to the hub's storage; `total` is their bytes in all.
    pub(super) async fn store(&self, files: &[&UploadFile], total: u64) -> Result<(), Error> {
        if files.is_empty() {
            return Ok(());
        }
        let mut step = Step { done: 0, total, file: String::new() };
        let objects = self.batch(files).await?;
        for file in files {
            step.file.clone_from(&file.name);
            let object = objects.iter().find(|object| object.oid == file.sha256);
            let object = object.ok_or_else(|| self.nonsense(&format!("nothing about {}", file.name)))?;
            if let Some(error) = &object.error {
                return Err(Error::HubRefused(format!("the hub does not take {}: {}", file.name, error.message)));
            }
            if let Some(action) = &object.actions.upload {
                self.store_file(file, action, &step).await?;
            }
            if let Some(action) = &object.actions.verify {
                self.verify(file, action).await?;
            }
            step.done += file.bytes;
            self.line.tell(step.clone());
        }
        Ok(())
    }

    async fn batch(&self, files: &[&UploadFile]) -> Result<Vec<Object>, Error> {
        let objects: Vec<_> = files.iter().map(|file| json!({"oid": file.sha256, "size": file.bytes})).collect();
        let body = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "objects": objects, "hash_algo": "sha256",
            "ref": {"name": BRANCH},
        });
        let url = format!("{}/{}.git/info/lfs/objects/batch", self.settings.endpoint, self.upload.repository);
        let batch: Batch = self
            .again("the places of large files", async || {
                let request = self.authorised(self.http.post(&url)).header(header::ACCEPT, LFS_JSON);
                let request = request.json(&body).header(header::CONTENT_TYPE, LFS_JSON);
                let response = self.checked(request.send().await.map_err(trouble)?)?;
                response.json().await.map_err(trouble)
            })
            .await?;
        Ok(batch.objects)
    }

    async fn store_file(&self, file: &UploadFile, action: &Action, step: &Step) -> Result<(), Error> {
        let chunk = action.header.get("chunk_size").and_then(|size| size.parse::<u64>().ok()).filter(|size| *size > 0);
        let Some(chunk) = chunk else {
            let part = Part { file, url: &action.href, headers: &action.header, start: 0, length: file.bytes };
            return self.put(&part, step).await.map(|_| ());
        };
        // The keys that are numbers are the parts, each with its address.
        let numbered = action.header.iter().filter_map(|(key, url)| Some((key.parse::<u64>().ok()?, url)));
        let urls: BTreeMap<u64, &String> = numbered.collect();
        if urls.len() as u64 != file.bytes.div_ceil(chunk) {
            return Err(self.nonsense(&format!("{} parts for {}", urls.len(), file.name)));
        }
        let (none, mut parts, mut start) = (HashMap::new(), Vec::new(), 0);
        for (number, url) in urls {
            let length = chunk.min(file.bytes - start);
            let part = Part { file, url, headers: &none, start, length };
            let etag = self.put(&part, &Step { done: step.done + start, ..step.clone() }).await?;
            parts.push(json!({"partNumber": number, "etag": etag}));
            start += length;
        }
        self.post(&action.href, &json!({"oid": file.sha256, "parts": parts}), &file.name).await
    }

    /// Sends one part; gives the entity tag it has there.
    async fn put(&self, part: &Part<'_>, step: &Step) -> Result<String, Error> {
        let timeout = Duration::from_secs(SHORTEST_TIMEOUT + part.length / SLOWEST);
        self.again(&part.file.name, async || {
            let body = Body::wrap_stream(self.read(part, step).await?);
            let mut request = self.http.request(Method::PUT, part.url).timeout(timeout);
            for (name, value) in part.headers {
                request = request.header(name, value);
            }
            let request = request.header(header::CONTENT_LENGTH, part.length).body(body);
            let response = request.send().await.map_err(trouble)?;
            if !response.status().is_success() {
                return Err(Trouble::passing(format!("its storage answered {}", response.status().as_u16())));
            }
            let etag = response.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
            Ok(etag.unwrap_or_default().to_owned())
        })
        .await
    }

    /// The bytes of a part as they are read, with a report of progress at each chunk.
    async fn read(
        &self,
        part: &Part<'_>,
        step: &Step,
    ) -> Result<impl Stream<Item = std::io::Result<Vec<u8>>> + Send + use<>, Error> {
        let path = &part.file.path;
        let mut file = File::open(path).await.map_err(Error::io(path))?;
        file.seek(SeekFrom::Start(part.start)).await.map_err(Error::io(path))?;
        let (line, step): (Line, Step) = (self.line.clone(), step.clone());
        Ok(stream::try_unfold((file, 0, part.length), move |(mut file, sent, left)| {
            let (line, step) = (line.clone(), Step { done: step.done + sent, ..step.clone() });
            async move {
                line.tell(step);
                if left == 0 {
                    return Ok(None);
                }
                let mut chunk = Vec::new();
                let read = (&mut file).take(left.min(CHUNK)).read_to_end(&mut chunk).await? as u64;
                match read {
                    0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
                    read => Ok(Some((chunk, (file, sent + read, left - read)))),
                }
            }
        }))
    }

    async fn verify(&self, file: &UploadFile, action: &Action) -> Result<(), Error> {
        self.post(&action.href, &json!({"oid": file.sha256, "size": file.bytes}), &file.name).await
    }

    /// Tells the hub that a file is complete. The token goes only to the hub itself.
    async fn post(&self, url: &str, body: &serde_json::Value, what: &str) -> Result<(), Error> {
        let ours = url.starts_with(&format!("{}/", self.settings.endpoint));
        self.again(what, async || {
            let request = self.http.post(url);
            let request = if ours { self.authorised(request) } else { request };
            let request = request.json(body).header(header::CONTENT_TYPE, LFS_JSON);
            self.checked(request.send().await.map_err(trouble)?).map(|_| ())
        })
        .await
    }

    fn nonsense(&self, what: &str) -> Error {
        Error::HubUnavailable(format!("{} does not answer like a hub: {what}", self.settings.endpoint))
    }
}
