//! A hub on 127.0.0.1 that behaves, or not, as a test wants.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::storage::Storage;

/// The commit of every branch.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Another status, with a header.
    Status(u16, Option<(&'static str, String)>),
    /// The transfer ends after so many bytes.
    Cut(usize),
    /// Other bytes than announced.
    Content(Vec<u8>),
    /// No answer, ever.
    Silence,
    /// Another JSON document.
    Json(Value),
}

struct Rule {
    path: String,
    fault: Fault,
    left: usize,
}

#[derive(Default)]
struct Shared {
    files: BTreeMap<String, (Vec<u8>, bool)>,
    rules: Vec<Rule>,
    requests: Vec<(String, Option<String>)>,
    tokens: Vec<Option<String>>,
}

/// The hub; it serves one repository under every name.
pub(crate) struct FakeHub {
    pub(crate) endpoint: String,
    shared: Arc<Mutex<Shared>>,
    storage: Arc<Mutex<Storage>>,
}

type Both = (Arc<Mutex<Shared>>, Arc<Mutex<Storage>>);

impl FakeHub {
    /// Starts on a free port.
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let storage = Arc::new(Mutex::new(Storage::at(&endpoint)));
        let router = Router::new().fallback(answer).with_state((Arc::clone(&shared), Arc::clone(&storage)));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        Self { endpoint, shared, storage }
    }

    /// What has been uploaded.
    pub(crate) fn storage(&self) -> MutexGuard<'_, Storage> {
        self.storage.lock().unwrap()
    }

    /// A small file in git, announced with git's hash.
    pub(crate) fn small(self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.shared.lock().unwrap().files.insert(name.to_owned(), (content.into(), false));
        self
    }

    /// A file in large file storage, announced with its SHA-256.
    pub(crate) fn large(self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.shared.lock().unwrap().files.insert(name.to_owned(), (content.into(), true));
        self
    }

    /// Lets the next `times` requests (but HEAD) whose path contains `path` meet a fault.
    pub(crate) fn fault(self, path: &str, times: usize, fault: Fault) -> Self {
        self.shared.lock().unwrap().rules.push(Rule { path: path.to_owned(), fault, left: times });
        self
    }

    /// Downloads so far: file and range.
    pub(crate) fn downloads(&self) -> Vec<(String, Option<String>)> {
        let requests = self.shared.lock().unwrap().requests.clone();
        let files =
            requests.into_iter().filter_map(|(path, range)| Some((path.split_once("/resolve/")?.1.to_owned(), range)));
        files.map(|(path, range)| (path.split_once('/').unwrap().1.to_owned(), range)).collect()
    }

    /// The Authorization header of every request so far.
    pub(crate) fn tokens(&self) -> Vec<Option<String>> {
        self.shared.lock().unwrap().tokens.clone()
    }
}

async fn answer(State((shared, storage)): State<Both>, request: Request) -> Response {
    let path = percent_decode_str(request.uri().path()).decode_utf8().unwrap().into_owned();
    let (range, token) = (text(&request, &header::RANGE), text(&request, &header::AUTHORIZATION));
    let method = request.method().clone();
    let is_head = method == Method::HEAD;
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap_or_default();
    let fault = {
        let mut shared = shared.lock().unwrap();
        shared.tokens.push(token.clone());
        let rule = (!is_head).then(|| shared.rules.iter_mut().find(|rule| rule.left > 0 && path.contains(&rule.path)));
        let fault = rule.flatten().map(|rule| {
            rule.left -= 1;
            rule.fault.clone()
        });
        if !is_head {
            shared.requests.push((path.clone(), range.clone()));
        }
        fault
    };
    match fault {
        Some(Fault::Status(status, with)) => failure(status, with),
        Some(Fault::Json(value)) => axum::Json(value).into_response(),
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Cut(at)) => deliver(&shared, &path, range.as_deref(), Some(at)),
        Some(Fault::Content(bytes)) => bytes.into_response(),
        None if matches!(method, Method::POST | Method::PUT) => {
            let answer = storage.lock().unwrap().answer(&method, &path, token.as_ref(), &body);
            // What is asked with POST is the list of some files, too.
            answer.unwrap_or_else(|| api(&shared, &path))
        }
        None if path.starts_with("/api/") => api(&shared, &path),
        None => deliver(&shared, &path, range.as_deref(), None),
    }
}

fn text(request: &Request, name: &header::HeaderName) -> Option<String> {
    request.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
}

fn failure(status: u16, with: Option<(&'static str, String)>) -> Response {
    let mut response = StatusCode::from_u16(status).unwrap().into_response();
    if let Some((name, value)) = with {
        response.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
    }
    response
}

fn api(shared: &Mutex<Shared>, path: &str) -> Response {
    if let Some((_, revision)) = path.split_once("/revision/") {
        // A commit is its own revision; a branch is at COMMIT.
        let is_commit = revision.len() == COMMIT.len() && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
        return axum::Json(json!({"id": "org/name", "sha": if is_commit { revision } else { COMMIT }})).into_response();
    }
    let shared = shared.lock().unwrap();
    let list: Vec<Value> =
        shared.files.iter().map(|(name, (content, large))| describe(name, content, *large)).collect();
    axum::Json(list).into_response()
}

fn describe(name: &str, content: &[u8], large: bool) -> Value {
    let digest = Sha256::digest(content);
    let hash = digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let mut entry = json!({"type": "file", "path": name, "size": content.len(), "oid": hash[..40]});
    if large {
        entry["lfs"] = json!({"oid": hash, "sha256": hash, "size": content.len(), "pointerSize": 134});
    }
    entry
}

/// A file or a part of it, broken off after `cut` bytes.
fn deliver(shared: &Mutex<Shared>, path: &str, range: Option<&str>, cut: Option<usize>) -> Response {
    let name = path.split_once("/resolve/").and_then(|(_, rest)| rest.split_once('/')).map(|(_, name)| name);
    let shared = shared.lock().unwrap();
    let Some((content, _)) = name.and_then(|name| shared.files.get(name)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (start, end) = range.map_or((0, content.len()), |range| {
        let (start, end) = range.trim_start_matches("bytes=").split_once('-').unwrap();
        (start.parse().unwrap(), end.parse().map_or(content.len(), |last: usize| content.len().min(last + 1)))
    });
    let content = content[start..end].to_vec();
    let length = content.len();
    let body = match cut {
        Some(at) => {
            // The server writes what it has whenever the body has nothing ready, so let it before the end.
            let start = stream::iter([Ok(content[..at].to_vec())]);
            let end = stream::once(async {
                for _ in 0..16 {
                    tokio::task::yield_now().await;
                }
                Err(std::io::Error::other("cut"))
            });
            Body::from_stream(start.chain(end))
        }
        None => Body::from(content),
    };
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    (status, [(header::CONTENT_LENGTH, length)], body).into_response()
}
