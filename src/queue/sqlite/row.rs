//! From rows to records. What cannot be read is an error that names the job, never a panic.

use std::{fmt::Display, time::Duration};

use serde::de::DeserializeOwned;
use sqlx::{Row, sqlite::SqliteRow};

use crate::{
    job::{FailureCode, JobId, JobSpec, Status},
    queue::{Beat, Claim, EventRecord, JobError, JobRecord, Origin, StoreError, retry::Standing},
};

fn corrupt(id: &str, what: impl Display) -> StoreError {
    StoreError::Corrupt { id: id.to_owned(), what: format!("{what}") }
}

fn from_json<T: DeserializeOwned>(id: &str, column: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| corrupt(id, format!("{column}: {error}")))
}

fn attempt(id: &str, row: &SqliteRow) -> Result<u32, StoreError> {
    u32::try_from(row.try_get::<i64, _>("attempt")?).map_err(|error| corrupt(id, format!("attempt: {error}")))
}

pub(super) fn status(id: &str, text: &str) -> Result<Status, StoreError> {
    text.parse().map_err(|error: String| corrupt(id, error))
}

pub(super) fn record(row: &SqliteRow) -> Result<JobRecord, StoreError> {
    let id: String = row.try_get("id")?;
    let progress: Option<String> = row.try_get("progress")?;
    Ok(JobRecord {
        id: id.parse().map_err(|error| corrupt(&id, error))?,
        tenant: row.try_get("tenant")?,
        spec: from_json::<JobSpec>(&id, "spec", row.try_get("spec")?)?,
        status: status(&id, row.try_get("status")?)?,
        progress: progress.map(|text| from_json(&id, "progress", &text)).transpose()?,
        progress_at: row.try_get("progress_at")?,
        stage_started_at: row.try_get("stage_started_at")?,
        attempt: attempt(&id, row)?,
        cancel_requested: row.try_get("cancel_requested")?,
        pause_requested: row.try_get("pause_requested")?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
        error: error(&id, row)?,
    })
}

fn error(id: &str, row: &SqliteRow) -> Result<Option<JobError>, StoreError> {
    let Some(code) = row.try_get::<Option<String>, _>("error_code")? else { return Ok(None) };
    let code: FailureCode =
        serde_json::from_value(code.into()).map_err(|error| corrupt(id, format!("error_code: {error}")))?;
    let message: Option<String> = row.try_get("error_message")?;
    Ok(Some(JobError { code, message: message.unwrap_or_default() }))
}

pub(super) fn claim(row: &SqliteRow) -> Result<Claim, StoreError> {
    let id: String = row.try_get("id")?;
    Ok(Claim {
        id: id.parse().map_err(|error| corrupt(&id, error))?,
        spec: from_json(&id, "spec", row.try_get("spec")?)?,
        attempt: attempt(&id, row)?,
        origin: Origin { request_id: row.try_get("request_id")?, traceparent: row.try_get("traceparent")? },
    })
}

pub(super) fn beat(row: Option<&SqliteRow>) -> Result<Beat, StoreError> {
    let Some(row) = row else { return Ok(Beat::Lost) };
    Ok(if row.try_get("cancel_requested")? {
        Beat::CancelRequested
    } else if row.try_get("pause_requested")? {
        Beat::PauseRequested
    } else {
        Beat::Owned
    })
}

pub(super) fn event(id: &str, row: &SqliteRow) -> Result<EventRecord, StoreError> {
    let seq = u64::try_from(row.try_get::<i64, _>("seq")?).map_err(|error| corrupt(id, format!("seq: {error}")))?;
    let kind: String = row.try_get("type")?;
    Ok(EventRecord {
        seq,
        at: row.try_get("at")?,
        kind: kind.parse().map_err(|error: String| corrupt(id, error))?,
        data: from_json(id, "data", row.try_get("data")?)?,
    })
}

pub(super) fn ended(row: &SqliteRow) -> Result<(JobId, Duration), StoreError> {
    let id: String = row.try_get("id")?;
    let age = Duration::from_millis(u64::try_from(row.try_get::<i64, _>("age")?).unwrap_or(0));
    Ok((id.parse().map_err(|error| corrupt(&id, error))?, age))
}

/// The job that another one's model comes from.
pub(super) fn source(row: &SqliteRow) -> Result<JobId, StoreError> {
    let id: String = row.try_get("job")?;
    id.parse().map_err(|error| corrupt(&id, error))
}

pub(super) fn standing(row: &SqliteRow) -> Result<Standing, StoreError> {
    Ok(Standing {
        cancel_requested: row.try_get("cancel_requested")?,
        pause_requested: row.try_get("pause_requested")?,
        retries: row.try_get("retries")?,
        crashes_in_a_row: row.try_get("crashes_in_a_row")?,
    })
}
