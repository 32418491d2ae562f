//! What can go wrong with a request, in words for the user, and whether it may pass.

use std::time::Duration;

use hf_hub::HFError;

use super::Session;
use crate::checkpoint::{
    Error,
    hub::{HubSettings, cache::Cache},
};

/// Why a request failed.
#[derive(Debug)]
pub(in super::super) enum Trouble {
    /// The next try may succeed.
    Passing {
        /// Why, without addresses: those of large files carry signatures.
        text: String,
        /// How long the hub asks to wait.
        pause: Option<Duration>,
    },
    /// The next try would fail as well.
    Lasting(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Lasting(error)
    }
}

impl Trouble {
    pub(in super::super) fn passing(text: impl Into<String>) -> Self {
        Self::Passing { text: text.into(), pause: None }
    }
}

impl Session<'_> {
    /// Puts an error of hf-hub into words and decides whether it may pass.
    pub(in super::super) fn trouble(&self, error: HFError) -> Trouble {
        let HubSettings { endpoint, cache_dir, .. } = self.settings;
        let Cache { repository, revision, .. } = self.cache;
        let lasting = |text: String| Trouble::Lasting(Error::NotFound(text));
        match error {
            HFError::RepoNotFound { .. } => lasting(format!("there is no repository {repository} on {endpoint}")),
            HFError::RevisionNotFound { .. } => {
                lasting(format!("there is no {repository} with a revision '{revision}' on {endpoint}"))
            }
            HFError::EntryNotFound { path, .. } => {
                lasting(format!("{repository}@{revision} has no file {}", path.escape_debug()))
            }
            HFError::RateLimited { retry_after, .. } => {
                Trouble::Passing { text: "too many requests (429)".to_owned(), pause: retry_after }
            }
            // Not every request of hf-hub tells these apart, so the status decides.
            HFError::Http { context } | HFError::AuthRequired { context } | HFError::Forbidden { context } => {
                self.refused(context.status.as_u16(), context.error_code.as_deref())
            }
            HFError::Request { source, .. } => Trouble::passing(root_cause(&source.without_url())),
            HFError::Io(source) => Trouble::Lasting(Error::Io { path: cache_dir.clone(), source }),
            other => Trouble::passing(other.to_string()),
        }
    }

    fn refused(&self, status: u16, code: Option<&str>) -> Trouble {
        let HubSettings { endpoint, token, .. } = self.settings;
        let Cache { repository, revision, .. } = self.cache;
        let text = match (status, code) {
            (401, code) if code != Some("GatedRepo") => {
                let present = if token.is_some() { "; the present one may not" } else { "" };
                format!(
                    "{repository} does not exist on {endpoint} or is private: check the name, and give the server a \
                     token that may read it (HF_TOKEN{present})"
                )
            }
            (401 | 403, _) => format!(
                "{repository} may not be read: accept its licence at {endpoint}/{repository} and give the server \
                 that account's token (HF_TOKEN)"
            ),
            (404, _) => format!("{repository}@{revision} was not found on {endpoint}"),
            (408 | 429 | 500.., _) => return Trouble::passing(format!("it answered {status}")),
            _ => {
                return Trouble::Lasting(Error::HubUnavailable(format!(
                    "{endpoint} answered {status} for {repository}"
                )));
            }
        };
        Trouble::Lasting(Error::NotFound(text))
    }
}

/// The innermost reason, which says more than "error sending request".
pub(in super::super) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
