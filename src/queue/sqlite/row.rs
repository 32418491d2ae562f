//! Rows as records. A row is read as suspiciously as a file: another version may have written it.

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row as _, sqlite::SqliteRow};

use crate::{
    job::{FailureCode, JobId, JobSpec},
    queue::{JobError, JobRecord, StoreError},
};

pub(super) fn job_record(row: &SqliteRow) -> Result<JobRecord, StoreError> {
    let id = parse_id(row)?;
    let status: String = row.try_get("status")?;
    let progress: Option<String> = row.try_get("progress")?;
    Ok(JobRecord {
        id,
        spec: parse_spec(row)?,
        status: status.parse().map_err(|what| corrupt(id, what))?,
        progress: progress.as_deref().map(|text| from_json(id, text)).transpose()?,
        attempt: row.try_get("attempt")?,
        cancel_requested: row.try_get("cancel_requested")?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
        error: error(id, row)?,
    })
}

pub(super) fn parse_id(row: &SqliteRow) -> Result<JobId, StoreError> {
    let text: String = row.try_get("id")?;
    text.parse().map_err(|_| corrupt(&text, "its id is no job id"))
}

pub(super) fn parse_spec(row: &SqliteRow) -> Result<JobSpec, StoreError> {
    let text: String = row.try_get("spec")?;
    from_json(parse_id(row)?, &text)
}

fn error(id: JobId, row: &SqliteRow) -> Result<Option<JobError>, StoreError> {
    let code: Option<String> = row.try_get("error_code")?;
    let Some(code) = code else { return Ok(None) };
    let code: FailureCode = from_json(id, &format!("\"{code}\""))?;
    let message: Option<String> = row.try_get("error_message")?;
    Ok(Some(JobError { code, message: message.unwrap_or_default() }))
}

pub(super) fn to_json(id: JobId, value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| corrupt(id, error))
}

fn from_json<T: DeserializeOwned>(id: JobId, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| corrupt(id, error))
}

fn corrupt(id: impl ToString, what: impl ToString) -> StoreError {
    StoreError::Corrupt { id: id.to_string(), what: what.to_string() }
}
