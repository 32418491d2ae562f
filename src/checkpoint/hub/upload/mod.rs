//! A folder's files to a model repository, in one commit.
//!
//! Small files travel inside the commit, large ones to the storage the hub names. hf-hub is not used for this: where a
//! hub does not choose its chunked storage, it puts large files into the commit as well, read into memory whole.

mod storage;

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{RequestBuilder, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    HubSettings, ObserveDownload,
    transfer::{CONNECT_TIMEOUT, Line, READ_TIMEOUT, Step, Trouble, USER_AGENT, again, root_cause, run},
};
use crate::checkpoint::Error;

/// The branch that is written.
const BRANCH: &str = "main";
/// So much of a file the hub wants to see before it decides where the file goes.
const SAMPLE: u64 = 512;
const NDJSON: &str = "application/x-ndjson";

/// A file to be uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadFile {
    /// Its name in the repository, with `/` between its parts.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, in lower-case hexadecimal.
    pub sha256: String,
}

/// What is uploaded, and where to.
#[derive(Clone, Debug)]
pub struct Upload {
    /// `owner/name`; it is made where it does not exist.
    pub repository: String,
    /// Whether a new repository is private.
    pub private: bool,
    /// The first line of the commit's message.
    pub summary: String,
    /// The files.
    pub files: Vec<UploadFile>,
}

/// Where the files are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// The repository's page.
    pub url: String,
    /// The commit.
    pub commit: String,
}

/// Uploads the files in one commit: all of them are visible then, or none.
///
/// # Errors
/// [`Error::HubRefused`] when the token of `settings` may not do it (and what to do), [`Error::HubUnavailable`] when
/// the hub does not answer properly, [`Error::Io`] for a file, [`Error::Cancelled`].
pub fn upload(upload: &Upload, settings: &HubSettings, observe: ObserveDownload<'_>) -> Result<Uploaded, Error> {
    run(observe, async |line| Uploader::new(upload, settings, line)?.run().await)
}

/// An upload at work.
struct Uploader<'a> {
    upload: &'a Upload,
    settings: &'a HubSettings,
    line: &'a Line,
    http: reqwest::Client,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
}

#[derive(Deserialize)]
struct Modes {
    files: Vec<Mode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    commit_oid: String,
}

impl<'a> Uploader<'a> {
    fn new(upload: &'a Upload, settings: &'a HubSettings, line: &'a Line) -> Result<Self, Error> {
        if settings.offline {
            return Err(Error::HubRefused("the hub is switched off (HF_HUB_OFFLINE): nothing is uploaded".to_owned()));
        }
        let http = reqwest::Client::builder().user_agent(USER_AGENT).connect_timeout(CONNECT_TIMEOUT).build();
        let http = http.map_err(|error| Error::HubUnavailable(format!("no connection can be made: {error}")))?;
        Ok(Self { upload, settings, line, http })
    }

    async fn run(&self) -> Result<Uploaded, Error> {
        self.create_repository().await?;
        let (large, small) = self.sort().await?;
        let total = large.iter().map(|file| file.bytes).sum();
        self.line.tell(Step { total, ..Step::default() });
        self.store(&large, total).await?;
        let commit = self.commit(&small, &large).await?;
        Ok(Uploaded { url: format!("{}/{}", self.settings.endpoint, self.upload.repository), commit })
    }

    /// Makes the repository; one that exists is as good.
    async fn create_repository(&self) -> Result<(), Error> {
        let (owner, name) = self.upload.repository.split_once('/').unwrap_or_default();
        let body = json!({"type": "model", "organization": owner, "name": name, "private": self.upload.private});
        let url = format!("{}/api/repos/create", self.settings.endpoint);
        self.again("the new repository", async || {
            let response = self.authorised(self.http.post(&url)).json(&body).send().await.map_err(trouble)?;
            match response.status() {
                StatusCode::CONFLICT => Ok(()),
                _ => self.checked(response).map(|_| ()),
            }
        })
        .await
    }

    /// Asks the hub which files are large; gives those and the others.
    async fn sort(&self) -> Result<(Vec<&'a UploadFile>, Vec<&'a UploadFile>), Error> {
        let mut files = Vec::new();
        for file in &self.upload.files {
            let sample = STANDARD.encode(sample(&file.path)?);
            files.push(json!({"path": file.name, "size": file.bytes, "sample": sample}));
        }
        let modes: Modes = self.ask("preupload", &json!({ "files": files })).await?;
        let large = |file: &&UploadFile| {
            modes.files.iter().any(|mode| mode.path == file.name && mode.upload_mode == "lfs") && file.bytes > 0
        };
        Ok(self.upload.files.iter().partition(large))
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, what: &str, body: &Value) -> Result<T, Error> {
        let url = self.api(what);
        self.again(what, async || {
            let request = self.authorised(self.http.post(&url)).json(body);
            let response = self.checked(request.send().await.map_err(trouble)?)?;
            response.json().await.map_err(trouble)
        })
        .await
    }

    async fn commit(&self, small: &[&UploadFile], large: &[&UploadFile]) -> Result<String, Error> {
        let mut lines = vec![json!({"key": "header", "value": {"summary": self.upload.summary, "description": ""}})];
        for file in small {
            let content = STANDARD.encode(fs::read(&file.path).map_err(Error::io(&file.path))?);
            let value = json!({"path": file.name, "content": content, "encoding": "base64"});
            lines.push(json!({"key": "file", "value": value}));
        }
        for file in large {
            let value = json!({"path": file.name, "algo": "sha256", "oid": file.sha256, "size": file.bytes});
            lines.push(json!({"key": "lfsFile", "value": value}));
        }
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        let body = lines.join("\n") + "\n";
        let url = self.api("commit");
        let committed: Committed = self
            .again("the commit", async || {
                let request = self.authorised(self.http.post(&url)).header(header::CONTENT_TYPE, NDJSON);
                let response = self.checked(request.body(body.clone()).send().await.map_err(trouble)?)?;
                response.json().await.map_err(trouble)
            })
            .await?;
        Ok(committed.commit_oid)
    }

    fn api(&self, what: &str) -> String {
        format!("{}/api/models/{}/{what}/{BRANCH}", self.settings.endpoint, self.upload.repository)
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.timeout(READ_TIMEOUT);
        match &self.settings.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn again<T>(&self, what: &str, request: impl AsyncFnMut() -> Result<T, Trouble>) -> Result<T, Error> {
        again(self.settings, &self.upload.repository, what, request).await
    }

    /// The response if it says that all is well, else what is wrong.
    fn checked(&self, response: reqwest::Response) -> Result<reqwest::Response, Trouble> {
        let (endpoint, repository) = (&self.settings.endpoint, &self.upload.repository);
        let lasting = |text: String| Err(Trouble::Lasting(Error::HubRefused(text)));
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED => lasting(format!(
                "{endpoint} does not know the token: give one that may write to {repository} (HF_TOKEN of the server, \
                 or the header X-HF-Token)"
            )),
            StatusCode::FORBIDDEN => lasting(format!(
                "the token may not write to {repository} on {endpoint}: it must be of an account that owns the \
                 namespace, and have the write permission"
            )),
            StatusCode::NOT_FOUND => lasting(format!("{repository} does not exist on {endpoint}, and cannot be made")),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(Trouble::Passing {
                text: format!("it answered {}", response.status().as_u16()),
                pause: retry_after(&response),
            }),
            status if status.is_server_error() => Err(Trouble::passing(format!("it answered {}", status.as_u16()))),
            status => lasting(format!("{endpoint} answered {} for {repository}", status.as_u16())),
        }
    }
}

/// Why a request got no answer, without addresses: those of large files carry signatures.
fn trouble(error: reqwest::Error) -> Trouble {
    Trouble::passing(root_cause(&error.without_url()))
}

fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The first bytes of a file.
fn sample(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(Error::io(path))?;
    file.take(SAMPLE).read_to_end(&mut bytes).map_err(Error::io(path))?;
    Ok(bytes)
}
