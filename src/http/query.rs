//! Query parameters: known by name, given once, in range.

use std::{collections::BTreeMap, str::FromStr};

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};

use super::{ApiError, ApiState, access::Caller};
use crate::{
    job::{JobId, Status},
    queue::Listing,
};

const DEFAULT_LIMIT: u32 = 20;
/// Entries of the longest page.
pub(super) const LONGEST_LIST: u32 = 100;
/// As many as a job can have.
const MOST_LABELS: usize = 16;

/// The parameters of a query in their order.
pub(super) async fn pairs<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Vec<(String, String)>, ApiError> {
    let pairs = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
    pairs.map(|Query(pairs)| pairs).map_err(|error| invalid("query", error.body_text()))
}

pub(super) fn invalid(field: &str, message: impl Into<String>) -> ApiError {
    ApiError::InvalidQuery { field: field.to_owned(), message: message.into() }
}

/// Fills `slot`, unless the value is wrong or there was one before.
pub(super) fn once<T, E: ToString>(field: &str, slot: &mut Option<T>, value: Result<T, E>) -> Result<(), ApiError> {
    let value = value.map_err(|error| invalid(field, error.to_string()))?;
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(invalid(field, "is given twice")),
    }
}

pub(super) fn parse_limit(text: &str) -> Result<u32, String> {
    let limit = text.parse().ok().filter(|limit| (1..=LONGEST_LIST).contains(limit));
    limit.ok_or_else(|| format!("'{text}' is not a number from 1 to {LONGEST_LIST}"))
}

/// The query of a list of jobs, of the caller's.
pub(super) struct ListQuery(pub(super) Listing);

impl FromRequestParts<ApiState> for ListQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let tenant = Some(Caller::from_request_parts(parts, state).await?.tenant);
        let (mut after, mut limit, mut status, mut metadata) = (None, None, None, BTreeMap::new());
        for (name, value) in &pairs(parts, state).await? {
            match (name.as_str(), label(name)) {
                ("after", _) => once("after", &mut after, value.parse::<JobId>())?,
                ("limit", _) => once("limit", &mut limit, parse_limit(value))?,
                ("status", _) => once("status", &mut status, Status::from_str(value))?,
                (_, Some(key)) if metadata.len() < MOST_LABELS => {
                    if metadata.insert(key.to_owned(), value.clone()).is_some() {
                        return Err(invalid(name, "is given twice"));
                    }
                }
                (other, _) => {
                    let known = "unknown parameter: after, limit, status and up to 16 metadata[key] are known";
                    return Err(invalid(other, known));
                }
            }
        }
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        Ok(Self(Listing { after, limit, status, tenant, metadata }))
    }
}

/// The key of `metadata[key]`.
fn label(name: &str) -> Option<&str> {
    name.strip_prefix("metadata[")?.strip_suffix(']')
}

/// The query of a job's events.
pub(super) struct EventsQuery {
    /// Only events with higher numbers.
    pub(super) after: Option<u64>,
    /// Events in a page.
    pub(super) limit: u32,
}

impl<S: Send + Sync> FromRequestParts<S> for EventsQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (mut after, mut limit) = (None, None);
        for (name, value) in &pairs(parts, state).await? {
            match name.as_str() {
                "after" => once("after", &mut after, number(value))?,
                "limit" => once("limit", &mut limit, parse_limit(value))?,
                other => return Err(invalid(other, "unknown parameter: after and limit are known")),
            }
        }
        Ok(Self { after, limit: limit.unwrap_or(LONGEST_LIST) })
    }
}

pub(super) fn number(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number: &u64| i64::try_from(*number).is_ok());
    number.ok_or_else(|| format!("'{text}' is not the number of an event"))
}

/// The query of a job's log.
pub(super) struct LogQuery {
    /// Whether to go on until the job is over.
    pub(super) follow: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for LogQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let mut follow = None;
        for (name, value) in &pairs(parts, state).await? {
            match name.as_str() {
                "follow" => once("follow", &mut follow, boolean(value))?,
                other => return Err(invalid(other, "unknown parameter: follow is known")),
            }
        }
        Ok(Self { follow: follow.unwrap_or(false) })
    }
}

/// The query of a published file.
pub(super) struct FileQuery {
    /// Whether to be sent to where the file lies, where that can be.
    pub(super) redirect: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for FileQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let mut redirect = None;
        for (name, value) in &pairs(parts, state).await? {
            match name.as_str() {
                "redirect" => once("redirect", &mut redirect, boolean(value))?,
                other => return Err(invalid(other, "unknown parameter: redirect is known")),
            }
        }
        Ok(Self { redirect: redirect.unwrap_or(false) })
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("'{text}' is neither 1 nor 0")),
    }
}

const LONGEST_NAME: usize = 255;

/// The query of an upload.
pub(super) struct NameQuery(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for NameQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let mut given = None;
        for (name, value) in &pairs(parts, state).await? {
            match name.as_str() {
                "name" => once("name", &mut given, checked_name(value))?,
                other => return Err(invalid(other, "unknown parameter: name is known")),
            }
        }
        Ok(Self(given))
    }
}

fn checked_name(text: &str) -> Result<String, String> {
    let fits = (1..=LONGEST_NAME).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned()).ok_or_else(|| format!("must have 1 to {LONGEST_NAME} printable characters"))
}
