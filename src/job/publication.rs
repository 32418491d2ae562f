//! Bringing a finished job's checkpoint to the hub.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{JobId, ModelSource, SpecError, spec::ExportFormat};

/// Where to publish a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"repo": "me/smaller-model", "private": true}))]
pub struct PublicationBody {
    /// `owner/name` on the hub; it is made where it does not exist.
    pub repo: String,
    /// Whether a new repository is private. Default: true.
    #[serde(default = "yes")]
    pub private: bool,
    /// Which checkpoint, where the job wrote two. Default: factored.
    #[serde(default)]
    pub format: Option<ExportFormat>,
}

const fn yes() -> bool {
    true
}

/// A valid order to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationOrder {
    /// `owner/name`.
    pub repository: String,
    /// Whether a new repository is private.
    pub private: bool,
    /// Which checkpoint; the first when absent.
    pub format: Option<ExportFormat>,
    /// The caller's own token; the server's when absent.
    pub token: Option<Token>,
}

/// An access token of the hub. It is never shown, logged or stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes it from a header.
    pub const fn new(token: String) -> Self {
        Self(token)
    }

    /// The token itself, for the one request header it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl PublicationOrder {
    /// Parses a request body.
    ///
    /// # Errors
    /// [`SpecError`] names the field at fault.
    pub fn parse(body: &serde_json::Value, token: Option<Token>) -> Result<Self, SpecError> {
        let wrong = |field: &str, message: String| SpecError { field: field.to_owned(), message };
        let body = PublicationBody::deserialize(body).map_err(|error| wrong("body", error.to_string()))?;
        match body.repo.parse() {
            Ok(ModelSource::Hub { repository, revision: None }) => {
                Ok(Self { repository, private: body.private, format: body.format, token })
            }
            _ => Err(wrong("repo", format!("'{}' names no repository: use owner/name", body.repo))),
        }
    }
}

/// How a publication stands. The server keeps the last one of each job until it stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Publication {
    /// `owner/name` on the hub.
    pub repo: String,
    /// How it stands.
    pub status: PublicationStatus,
    /// Bytes of large files that are there.
    pub done: u64,
    /// Bytes of large files in all; 0 until it is known.
    pub total: u64,
    /// The repository's page, once it has succeeded.
    pub url: Option<String>,
    /// The commit, once it has succeeded.
    pub commit: Option<String>,
    /// Why it failed, and what to do.
    pub error: Option<String>,
}

/// How a publication stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PublicationStatus {
    /// Files are on their way.
    Running,
    /// All files are in one commit of the repository.
    Succeeded,
    /// Nothing of it is visible in the repository.
    Failed,
}

/// Why an order to publish is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicationRefusal {
    /// One of the same job is under way.
    #[error("the job is being published already: GET the same path says how it stands")]
    Running,
    /// Nobody gave a token.
    #[error(
        "publishing needs a token that may write: send it in the header X-HF-Token, or give the server one (HF_TOKEN)"
    )]
    NoToken,
}

/// Publishes checkpoints, away from whoever asks for it.
pub trait Publisher: Send + Sync {
    /// Begins to publish a job's checkpoint.
    ///
    /// # Errors
    /// [`PublicationRefusal`]; nothing was begun.
    fn publish(&self, job: JobId, order: PublicationOrder) -> Result<Publication, PublicationRefusal>;
    /// How the last publication of a job stands.
    fn publication(&self, job: JobId) -> Option<Publication>;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_order_names_a_repository_and_nothing_else() {
        let order = PublicationOrder::parse(&json!({"repo": "me/model"}), None).unwrap();
        assert_eq!((order.repository.as_str(), order.private, order.format), ("me/model", true, None));
        for (body, field) in [
            (json!({}), "body"),
            (json!({"repo": "me/model", "token": "hf_x"}), "body"),
            (json!({"repo": "model"}), "repo"),
            (json!({"repo": "me/model@main"}), "repo"),
            (json!({"repo": "file:model"}), "repo"),
            (json!({"repo": "../model"}), "repo"),
        ] {
            assert_eq!(PublicationOrder::parse(&body, None).unwrap_err().field, field, "{body}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let order = PublicationOrder::parse(&json!({"repo": "me/model"}), Some(Token::new("hf_secret".into())));
        assert!(!format!("{:?}", order.unwrap()).contains("secret"));
    }
}
