//! What was given in confidence, and where it must not be found.

use std::{fs, path::Path};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::site::{Site, job};

/// What every server is given and must never tell.
pub(crate) const SECRETS: [(&str, &str); 2] = [
    ("HF_TOKEN", "hf_CanaryThatMustNeverBeSeen"),
    ("GRASPD_WEBHOOK_SECRET", "whsec_Q2FuYXJ5VGhhdE11c3ROZXZlckJlU2VlbjEyMzQ="),
];

/// Nothing that is kept or logged holds what was given in confidence.
pub(crate) fn stay_secret(folder: &Path) {
    are_nowhere(&SECRETS, folder);
}

fn are_nowhere(secrets: &[(&str, &str)], folder: &Path) {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                let bytes = fs::read(&entry).unwrap();
                for (name, secret) in secrets {
                    let found = memchr::memmem::find(&bytes, secret.as_bytes());
                    assert_eq!(found, None, "{name} lies open in {}", entry.display());
                }
            }
        }
    }
}

/// A caller with a key, or with what it takes for one.
struct Caller<'a> {
    site: &'a Site,
    key: &'a str,
    secrets: &'a [(&'a str, &'a str)],
}

impl Caller<'_> {
    /// What comes back, whose head and body hold no secret.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, String) {
        let mut request = Client::new().request(method, self.site.url(path)).bearer_auth(self.key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let reply = request.send().await.unwrap();
        let (status, head) = (reply.status().as_u16(), format!("{:?}", reply.headers()));
        let body = reply.text().await.unwrap();
        for (name, secret) in self.secrets {
            assert!(!head.contains(secret) && !body.contains(secret), "{name} lies open in the reply to {path}");
        }
        (status, body)
    }
}

#[tokio::test]
async fn no_reply_and_no_file_tells_a_key() {
    let mut site = Site::start().await;
    let (code, said) = site.tool(&["keys", "create", "--tenant", "canary"]);
    let key = said.lines().find(|line| line.starts_with("graspd_")).unwrap_or_else(|| panic!("{code}: {said}"));
    let wrong = format!("{}_Stranger", &key[..key.len() / 2]);
    let secrets: Vec<_> = SECRETS.into_iter().chain([("a key", key)]).collect();
    let stranger = Caller { site: &site, key: &wrong, secrets: &secrets };
    let caller = Caller { site: &site, key, secrets: &secrets };
    assert_eq!(stranger.ask(Method::GET, "/v1/jobs", None).await.0, 401);
    let (status, accepted) = caller.ask(Method::POST, "/v1/jobs", Some(&job())).await;
    assert_eq!(status, 202, "{accepted}");
    let accepted: Value = serde_json::from_str(&accepted).unwrap();
    let path = format!("/v1/jobs/{}", accepted["id"].as_str().unwrap());
    let over = site.until("the end of a job", async |_| {
        let (_, job) = caller.ask(Method::GET, &path, None).await;
        let job: Value = serde_json::from_str(&job).unwrap();
        matches!(job["status"].as_str(), Some("succeeded" | "failed")).then_some(job)
    });
    assert_eq!(over.await["status"], "succeeded");
    assert_eq!(caller.ask(Method::POST, "/v1/jobs", Some(&json!({"model": 1}))).await.0, 422);
    for rest in ["/report", "/artifacts", "/logs", "/artifacts/report.json", "/artifacts/SHA256SUMS"] {
        assert_eq!(caller.ask(Method::GET, &format!("{path}{rest}"), None).await.0, 200, "{rest}");
    }
    assert_eq!(caller.ask(Method::GET, "/v1/nothing", None).await.0, 404);
    assert_eq!(caller.ask(Method::GET, "/metrics", None).await.0, 403, "the key is not for that");
    let (_, listed) = site.tool(&["keys", "list"]);
    assert!(listed.contains("canary") && !listed.contains(key), "{listed}");
    site.terminate();
    let secrets: Vec<(&str, &str)> = secrets.into_iter().chain([("a wrong key", wrong.as_str())]).collect();
    are_nowhere(&secrets, site.folder());
}
