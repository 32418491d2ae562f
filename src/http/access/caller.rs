use axum::{extract::FromRequestParts, http::request::Parts};

use crate::{http::ApiError, job::Scope};

/// Who asks.
#[derive(Clone, Debug)]
pub(in crate::http) struct Caller {
    /// Whose jobs are seen; nobody else's are.
    pub(in crate::http) tenant: String,
    pub(super) scopes: Vec<Scope>,
}

impl Caller {
    pub(super) fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // The gate puts it there for every path that has an owner.
        parts.extensions.get::<Self>().cloned().ok_or(ApiError::KeyNeeded)
    }
}
