//! The side of the fake hub that takes uploads.

use std::collections::BTreeMap;

use axum::{
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::fake::{COMMIT, FakeHub};

/// Files longer than this are large.
const LARGE: u64 = 1_000;

/// What has been uploaded.
#[derive(Default)]
pub(crate) struct Storage {
    endpoint: String,
    part: Option<usize>,
    created: Vec<Value>,
    objects: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<String, BTreeMap<usize, Vec<u8>>>,
    completions: Vec<Value>,
    commits: Vec<String>,
    puts: usize,
    put_tokens: Vec<Option<String>>,
}

impl Storage {
    pub(crate) fn at(endpoint: &str) -> Self {
        Self { endpoint: endpoint.to_owned(), ..Self::default() }
    }

    /// Answers what is part of an upload.
    pub(crate) fn answer(
        &mut self,
        method: &Method,
        path: &str,
        token: Option<&String>,
        body: &[u8],
    ) -> Option<Response> {
        if method == Method::PUT {
            self.put_tokens.push(token.cloned());
            return Some(self.put(path.strip_prefix("/storage/")?, body));
        }
        if method != Method::POST {
            return None;
        }
        if path.contains("/commit/") {
            self.commits.push(String::from_utf8(body.to_vec()).unwrap());
            return Some(reply(json!({"success": true, "commitOid": COMMIT})));
        }
        let body: Value = serde_json::from_slice(body).ok()?;
        Some(match path {
            "/api/repos/create" => {
                self.created.push(body);
                reply(json!({"url": self.endpoint}))
            }
            path if path.contains("/preupload/") => preupload(&body),
            path if path.ends_with(".git/info/lfs/objects/batch") => self.batch(&body),
            path if path.starts_with("/complete/") => self.complete(body),
            path if path.starts_with("/verify/") => match self.objects.contains_key(body["oid"].as_str()?) {
                true => StatusCode::OK.into_response(),
                false => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
            },
            _ => return None,
        })
    }

    fn batch(&self, body: &Value) -> Response {
        let objects = body["objects"].as_array().unwrap().iter().map(|object| self.place(object));
        reply(json!({"transfer": "basic", "objects": objects.collect::<Vec<_>>()}))
    }

    fn place(&self, object: &Value) -> Value {
        let (oid, size) = (object["oid"].as_str().unwrap(), object["size"].as_u64().unwrap());
        let Self { endpoint, .. } = self;
        let actions = match self.part {
            _ if self.objects.contains_key(oid) => return json!({"oid": oid, "size": size}),
            None => json!({
                "upload": {"href": format!("{endpoint}/storage/{oid}?signature=secret")},
                "verify": {"href": format!("{endpoint}/verify/{oid}")},
            }),
            Some(part) => {
                let mut header = json!({"chunk_size": part.to_string()});
                for number in 1..=size.div_ceil(part as u64) {
                    header[number.to_string()] = json!(format!("{endpoint}/storage/{oid}/{number}"));
                }
                json!({"upload": {"href": format!("{endpoint}/complete/{oid}"), "header": header}})
            }
        };
        json!({"oid": oid, "size": size, "actions": actions})
    }

    fn put(&mut self, name: &str, body: &[u8]) -> Response {
        self.puts += 1;
        match name.split_once('/') {
            None => {
                self.objects.insert(name.to_owned(), body.to_vec());
                StatusCode::OK.into_response()
            }
            Some((oid, number)) => {
                let parts = self.parts.entry(oid.to_owned()).or_default();
                parts.insert(number.parse().unwrap(), body.to_vec());
                (StatusCode::OK, [(header::ETAG, format!("\"part-{number}\""))]).into_response()
            }
        }
    }

    fn complete(&mut self, body: Value) -> Response {
        let oid = body["oid"].as_str().unwrap().to_owned();
        let parts = self.parts.remove(&oid).unwrap_or_default();
        self.objects.insert(oid, parts.into_values().flatten().collect());
        self.completions.push(body);
        StatusCode::OK.into_response()
    }
}

fn preupload(body: &Value) -> Response {
    let mode = |file: &Value| {
        let large = file["size"].as_u64().unwrap() > LARGE;
        json!({"path": file["path"], "uploadMode": if large { "lfs" } else { "regular" }, "shouldIgnore": false})
    };
    reply(json!({"files": body["files"].as_array().unwrap().iter().map(mode).collect::<Vec<_>>()}))
}

fn reply(value: Value) -> Response {
    axum::Json(value).into_response()
}

impl FakeHub {
    /// Takes large files in parts of so many bytes.
    pub(crate) fn parts_of(self, bytes: usize) -> Self {
        self.storage().part = Some(bytes);
        self
    }

    /// The bodies of requests for new repositories.
    pub(crate) fn created(&self) -> Vec<Value> {
        self.storage().created.clone()
    }

    /// A large file by its SHA-256.
    pub(crate) fn stored(&self, sha256: &str) -> Option<Vec<u8>> {
        self.storage().objects.get(sha256).cloned()
    }

    /// What was said when the parts of large files were complete.
    pub(crate) fn completions(&self) -> Vec<Value> {
        self.storage().completions.clone()
    }

    /// The bodies of commits.
    pub(crate) fn commits(&self) -> Vec<String> {
        self.storage().commits.clone()
    }

    /// Large files and parts of them that were sent.
    pub(crate) fn puts(&self) -> usize {
        self.storage().puts
    }

    /// The Authorization header of everything sent to the storage.
    pub(crate) fn storage_tokens(&self) -> Vec<Option<String>> {
        self.storage().put_tokens.clone()
    }
}
