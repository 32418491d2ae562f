//! A client of the API, for the command line: the same views as the server's.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{
    ClientBuilder, Response, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
    redirect::Policy,
};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{ArtifactList, ArtifactView, JobList, JobView, Problem, VersionView, view::artifact_path};
use crate::{
    artifact::hexadecimal,
    job::{JobId, Report, Status},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two pieces of a reply; a download as a whole may take as long as it likes.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// A request did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's URL is none.
    #[error("'{url}' is no server URL: give one such as http://127.0.0.1:8080")]
    InvalidUrl {
        /// As given.
        url: String,
    },
    /// The key is none.
    #[error("the key holds characters that no key has")]
    InvalidKey,
    /// No server answered, or it broke off.
    #[error("{url}: {source}")]
    Unreachable {
        /// What was asked.
        url: Url,
        /// Why there is no answer.
        #[source]
        source: reqwest::Error,
    },
    /// The server said no.
    #[error("{}: {}", .0.code, .0.detail.as_deref().unwrap_or(&.0.title))]
    Problem(Box<Problem>),
    /// What answered is no graspd of a version this client understands.
    #[error("{url} answered with status {status} and no body that graspd sends")]
    Unexpected {
        /// What was asked.
        url: Url,
        /// The status of the reply.
        status: u16,
    },
    /// A downloaded file could not be written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A downloaded file is not the one that was published.
    #[error("{name} arrived damaged: its SHA-256 is {found} and not {expected}")]
    Damaged {
        /// The file's name.
        name: String,
        /// As listed.
        expected: String,
        /// As received.
        found: String,
    },
}

/// Which jobs to list.
#[derive(Clone, Copy, Debug)]
pub struct JobFilter {
    /// Only jobs in this state.
    pub status: Option<Status>,
    /// At most so many.
    pub limit: u32,
}

/// Talks to one server.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// For replies that may be silent for as long as a stage is.
    patient: reqwest::Client,
    server: Url,
}

impl Client {
    /// A client of the server at `url` that has no key. Nothing is sent yet.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        Self::with_key(url, None)
    }

    /// A client of the server at `url`, with a key where the server wants one. Nothing is sent yet.
    pub fn with_key(url: &str, key: Option<&str>) -> Result<Self, ClientError> {
        let invalid = || ClientError::InvalidUrl { url: url.to_owned() };
        let server = Url::parse(url).map_err(|_| invalid())?;
        if !matches!(server.scheme(), "http" | "https") {
            return Err(invalid());
        }
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| ClientError::InvalidKey)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let build = |builder: ClientBuilder| {
            let builder = builder.redirect(Policy::none()).connect_timeout(CONNECT_TIMEOUT);
            let builder = builder.default_headers(headers.clone());
            // A proxy has no way to this machine's own loopback.
            let builder = if is_loopback(&server) { builder.no_proxy() } else { builder };
            builder.build().map_err(|source| ClientError::Unreachable { url: server.clone(), source })
        };
        let http = build(reqwest::Client::builder().read_timeout(READ_TIMEOUT))?;
        let patient = build(reqwest::Client::builder())?;
        Ok(Self { http, patient, server })
    }

    /// Succeeds when the server is ready for jobs.
    pub async fn ready(&self) -> Result<(), ClientError> {
        let url = self.url("/readyz")?;
        accepted(self.http.get(url).send().await.map_err(|error| self.unreachable(error))?).await.map(drop)
    }

    /// Which graspd answers.
    pub async fn version(&self) -> Result<VersionView, ClientError> {
        self.get_json("/version").await
    }

    /// Submits a job, given as the body of `POST /v1/jobs`.
    pub async fn submit(&self, body: &serde_json::Value) -> Result<JobView, ClientError> {
        let request = self.http.post(self.url("/v1/jobs")?).json(body);
        self.json(request.send().await).await
    }

    /// Submits a job that the same key makes only once.
    pub async fn submit_once(&self, body: &serde_json::Value, key: Option<&str>) -> Result<JobView, ClientError> {
        let request = self.http.post(self.url("/v1/jobs")?).json(body);
        let request = match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        self.json(request.send().await).await
    }

    /// Lists jobs, newest first.
    pub async fn list(&self, filter: &JobFilter) -> Result<JobList, ClientError> {
        let status = filter.status.map(|status| format!("&status={status}")).unwrap_or_default();
        self.get_json(&format!("/v1/jobs?limit={}{status}", filter.limit)).await
    }

    /// Hands the log of a job to `take` as it comes; with `follow` until the job has ended.
    pub async fn logs(
        &self,
        id: JobId,
        follow: bool,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), ClientError> {
        let url = self.url(&format!("/v1/jobs/{id}/logs?follow={}", u8::from(follow)))?;
        let mut reply = accepted(self.patient.get(url).send().await.map_err(|error| self.unreachable(error))?).await?;
        while let Some(chunk) = reply.chunk().await.map_err(|error| self.unreachable(error))? {
            take(&chunk).map_err(|source| ClientError::Io { path: "standard output".into(), source })?;
        }
        Ok(())
    }

    /// Shows a job.
    pub async fn get(&self, id: JobId) -> Result<JobView, ClientError> {
        self.get_json(&format!("/v1/jobs/{id}")).await
    }

    /// Cancels a job.
    pub async fn cancel(&self, id: JobId) -> Result<JobView, ClientError> {
        let request = self.http.post(self.url(&format!("/v1/jobs/{id}/cancel"))?);
        self.json(request.send().await).await
    }

    /// The report of a job that has succeeded.
    pub async fn report(&self, id: JobId) -> Result<Report, ClientError> {
        self.get_json(&format!("/v1/jobs/{id}/report")).await
    }

    /// The files a job has published.
    pub async fn artifacts(&self, id: JobId) -> Result<Vec<ArtifactView>, ClientError> {
        let list: ArtifactList = self.get_json(&format!("/v1/jobs/{id}/artifacts")).await?;
        Ok(list.data)
    }

    /// Asks every `pause` until the job has ended, and shows each answer to `watch`. Gives the last one.
    pub async fn wait(
        &self,
        id: JobId,
        pause: Duration,
        mut watch: impl FnMut(&JobView),
    ) -> Result<JobView, ClientError> {
        loop {
            let job = self.get(id).await?;
            watch(&job);
            if job.status.is_terminal() {
                return Ok(job);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Downloads a published file to `target`, which appears only when it is whole and its SHA-256 fits.
    pub async fn download(&self, id: JobId, artifact: &ArtifactView, target: &Path) -> Result<(), ClientError> {
        self.download_watched(id, artifact, target, |_| {}).await
    }

    /// As [`Self::download`]; `watch` is told the bytes of each piece as it comes.
    pub async fn download_watched(
        &self,
        id: JobId,
        artifact: &ArtifactView,
        target: &Path,
        mut watch: impl FnMut(u64),
    ) -> Result<(), ClientError> {
        let url = self.url(&artifact_path(id, &artifact.name))?;
        let mut reply = accepted(self.http.get(url).send().await.map_err(|error| self.unreachable(error))?).await?;
        let mut partial = target.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let io = |source| ClientError::Io { path: partial.clone(), source };
        let mut file = tokio::fs::File::create(&partial).await.map_err(io)?;
        let mut hasher = Sha256::new();
        while let Some(chunk) = reply.chunk().await.map_err(|error| self.unreachable(error))? {
            hasher.update(&chunk);
            watch(chunk.len() as u64);
            file.write_all(&chunk).await.map_err(io)?;
        }
        file.sync_all().await.map_err(io)?;
        check(artifact, &hasher.finalize())?;
        tokio::fs::rename(&partial, target).await.map_err(io)
    }

    fn url(&self, path: &str) -> Result<Url, ClientError> {
        self.server.join(path).map_err(|_| ClientError::InvalidUrl { url: format!("{}{path}", self.server) })
    }

    fn unreachable(&self, source: reqwest::Error) -> ClientError {
        let url = source.url().unwrap_or(&self.server).clone();
        ClientError::Unreachable { url, source: source.without_url() }
    }

    async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(self.http.get(self.url(path)?).send().await).await
    }

    async fn json<T: DeserializeOwned>(&self, reply: reqwest::Result<Response>) -> Result<T, ClientError> {
        let reply = accepted(reply.map_err(|error| self.unreachable(error))?).await?;
        let (url, status) = (reply.url().clone(), reply.status().as_u16());
        let bytes = reply.bytes().await.map_err(|error| self.unreachable(error))?;
        serde_json::from_slice(&bytes).map_err(|_| ClientError::Unexpected { url, status })
    }
}

fn is_loopback(server: &Url) -> bool {
    let host = server.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn accepted(reply: Response) -> Result<Response, ClientError> {
    if reply.status().is_success() {
        return Ok(reply);
    }
    let (url, status) = (reply.url().clone(), reply.status().as_u16());
    match reply.json().await {
        Ok(problem) => Err(ClientError::Problem(Box::new(problem))),
        Err(_) => Err(ClientError::Unexpected { url, status }),
    }
}

fn check(artifact: &ArtifactView, sum: &[u8]) -> Result<(), ClientError> {
    let found = hexadecimal(sum);
    if found == artifact.sha256 {
        return Ok(());
    }
    Err(ClientError::Damaged { name: artifact.name.clone(), expected: artifact.sha256.clone(), found })
}
