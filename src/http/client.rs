//! A thin client of the API, for the command line.

use std::{path::Path, time::Duration};

use reqwest::{Client as Http, RequestBuilder, Response, StatusCode, redirect::Policy};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::{ArtifactView, JobView, List, Problem};
use crate::job::Report;

const PATIENCE: Duration = Duration::from_secs(30);

/// Talks to one server.
#[derive(Clone, Debug)]
pub struct Client {
    http: Http,
    server: String,
}

/// A request did not give what it was for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer, or one that broke off.
    #[error("{server}: {source}")]
    Transport {
        /// The server's address.
        server: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server said what is wrong.
    #[error("{} ({})", .0.detail, .0.code)]
    Problem(Box<Problem>),
    /// What answers is not graspd.
    #[error("{server} answered {status} with something that is not graspd's")]
    Foreign {
        /// The server's address.
        server: String,
        /// The HTTP status.
        status: StatusCode,
    },
    /// The file could not be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl ClientError {
    /// Whether the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Problem(problem) => problem.status == StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            Self::Foreign { .. } | Self::Io(_) => false,
        }
    }
}

impl Client {
    /// A client of the server at `server`, such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// [`ClientError::Transport`] when no client can be built on this machine.
    pub fn new(server: &str) -> Result<Self, ClientError> {
        let server = server.trim_end_matches('/').to_owned();
        let http = Http::builder().redirect(Policy::none()).read_timeout(PATIENCE).connect_timeout(PATIENCE).build();
        let http = http.map_err(|source| ClientError::Transport { server: server.clone(), source })?;
        Ok(Self { http, server })
    }

    /// Submits a job.
    pub async fn submit(&self, spec: &Value) -> Result<JobView, ClientError> {
        self.json(self.http.post(self.url("/v1/jobs")).json(spec)).await
    }

    /// A job as it stands.
    pub async fn job(&self, id: &str) -> Result<JobView, ClientError> {
        self.json(self.http.get(self.url(&format!("/v1/jobs/{id}")))).await
    }

    /// The report of a succeeded job.
    pub async fn report(&self, id: &str) -> Result<Report, ClientError> {
        self.json(self.http.get(self.url(&format!("/v1/jobs/{id}/report")))).await
    }

    /// The files of a succeeded job.
    pub async fn artifacts(&self, id: &str) -> Result<Vec<ArtifactView>, ClientError> {
        let list: List<ArtifactView> = self.json(self.http.get(self.url(&format!("/v1/jobs/{id}/artifacts")))).await?;
        Ok(list.data)
    }

    /// Streams a file of a job to `path`.
    pub async fn download(&self, artifact: &ArtifactView, path: &Path) -> Result<(), ClientError> {
        let mut response = self.send(self.http.get(self.url(&artifact.url))).await?;
        let mut file = tokio::fs::File::create(path).await?;
        while let Some(chunk) = response.chunk().await.map_err(|source| self.transport(source))? {
            file.write_all(&chunk).await?;
        }
        Ok(file.sync_all().await?)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    fn transport(&self, source: reqwest::Error) -> ClientError {
        ClientError::Transport { server: self.server.clone(), source }
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        let status = response.status();
        let body = response.bytes().await.map_err(|source| self.transport(source))?;
        serde_json::from_slice(&body).map_err(|_| ClientError::Foreign { server: self.server.clone(), status })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|source| self.transport(source))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|source| self.transport(source))?;
        Err(match serde_json::from_slice(&body) {
            Ok(problem) => ClientError::Problem(Box::new(problem)),
            Err(_) => ClientError::Foreign { server: self.server.clone(), status },
        })
    }
}
