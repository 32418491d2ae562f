//! What can go wrong with a request, in words for the user, and whether it may pass.

use std::time::Duration;

use hf_hub::HFError;

use super::Session;
use crate::checkpoint::Error;

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Trouble {
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
    pub(super) fn passing(text: impl Into<String>) -> Self {
        Self::Passing { text: text.into(), pause: None }
    }
}

impl Session<'_> {
    pub(super) fn trouble(&self, error: HFError) -> Trouble {
        let (endpoint, repository, revision) = (&self.settings.endpoint, &self.cache.repository, &self.cache.revision);
        let lasting = |text: String| Trouble::Lasting(Error::NotFound(text));
        match error {
            HFError::AuthRequired { context } if context.error_code.as_deref() != Some("GatedRepo") => {
                let token = match self.settings.token {
                    Some(_) => "give the server a token that may read it (HF_TOKEN; the present one may not)",
                    None => "give the server a token that may read it (HF_TOKEN)",
                };
                lasting(format!("{repository} does not exist on {endpoint} or is private: check the name, and {token}"))
            }
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => lasting(format!(
                "{repository} may not be read: accept its licence at {endpoint}/{repository} and give the server \
                 that account's token (HF_TOKEN)"
            )),
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
            HFError::Http { context } if context.status.is_server_error() || context.status.as_u16() == 408 => {
                Trouble::passing(format!("it answered {}", context.status))
            }
            HFError::Http { context } if context.status.as_u16() == 404 => {
                lasting(format!("{repository}@{revision} was not found on {endpoint}"))
            }
            HFError::Http { context } => Trouble::Lasting(Error::HubUnavailable(format!(
                "{endpoint} answered {} for {repository}",
                context.status
            ))),
            HFError::Request { source, .. } => Trouble::passing(root_cause(&source.without_url())),
            HFError::Io(source) => Trouble::Lasting(Error::Io { path: self.settings.cache_dir.clone(), source }),
            other => Trouble::passing(other.to_string()),
        }
    }
}

/// The innermost reason, which says more than "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
