//! Between rows and records, for every database. What cannot be read is an error that names the job, never a panic.

use std::{fmt::Display, time::Duration};

use serde::de::DeserializeOwned;
use sqlx::{ColumnIndex, Decode, Row, Type};

use super::{
    Beat, Claim, DatasetRecord, EventRecord, JobError, JobRecord, KeyRecord, Origin, StoreError, retry::Standing,
};
use crate::job::{FailureCode, JobId, JobSpec, Status};

/// A row by the names of its columns: all of them are texts, 64-bit integers or flags.
pub(super) trait Columns {
    fn text(&self, name: &str) -> Result<String, sqlx::Error>;
    fn text_or_none(&self, name: &str) -> Result<Option<String>, sqlx::Error>;
    fn integer(&self, name: &str) -> Result<i64, sqlx::Error>;
    fn integer_or_none(&self, name: &str) -> Result<Option<i64>, sqlx::Error>;
    fn flag(&self, name: &str) -> Result<bool, sqlx::Error>;
}

impl<R: Row> Columns for R
where
    for<'n> &'n str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> bool: Decode<'r, R::Database> + Type<R::Database>,
{
    fn text(&self, name: &str) -> Result<String, sqlx::Error> {
        self.try_get(name)
    }

    fn text_or_none(&self, name: &str) -> Result<Option<String>, sqlx::Error> {
        self.try_get(name)
    }

    fn integer(&self, name: &str) -> Result<i64, sqlx::Error> {
        self.try_get(name)
    }

    fn integer_or_none(&self, name: &str) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(name)
    }

    fn flag(&self, name: &str) -> Result<bool, sqlx::Error> {
        self.try_get(name)
    }
}

/// A length of time as databases keep it.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}

/// A number of bytes as databases keep it.
pub(super) fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(super) fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(sqlx::Error::Encode(error.into())))
}

fn corrupt(id: &str, what: impl Display) -> StoreError {
    StoreError::Corrupt { id: id.to_owned(), what: format!("{what}") }
}

fn from_json<T: DeserializeOwned>(id: &str, column: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| corrupt(id, format!("{column}: {error}")))
}

fn attempt(id: &str, row: &impl Columns) -> Result<u32, StoreError> {
    u32::try_from(row.integer("attempt")?).map_err(|error| corrupt(id, format!("attempt: {error}")))
}

pub(super) fn status(id: &str, text: &str) -> Result<Status, StoreError> {
    text.parse().map_err(|error: String| corrupt(id, error))
}

pub(super) fn record(row: &impl Columns) -> Result<JobRecord, StoreError> {
    let id: String = row.text("id")?;
    let progress: Option<String> = row.text_or_none("progress")?;
    Ok(JobRecord {
        id: id.parse().map_err(|error| corrupt(&id, error))?,
        tenant: row.text("tenant")?,
        spec: from_json::<JobSpec>(&id, "spec", &row.text("spec")?)?,
        status: status(&id, &row.text("status")?)?,
        progress: progress.map(|text| from_json(&id, "progress", &text)).transpose()?,
        progress_at: row.integer_or_none("progress_at")?,
        stage_started_at: row.integer_or_none("stage_started_at")?,
        attempt: attempt(&id, row)?,
        cancel_requested: row.flag("cancel_requested")?,
        pause_requested: row.flag("pause_requested")?,
        created_at: row.integer("created_at")?,
        started_at: row.integer_or_none("started_at")?,
        finished_at: row.integer_or_none("finished_at")?,
        error: error(&id, row)?,
        memory_needed: size(row.integer("memory_needed")?),
        largest_slot: row.integer_or_none("largest_slot")?.map(size),
    })
}

fn error(id: &str, row: &impl Columns) -> Result<Option<JobError>, StoreError> {
    let Some(code) = row.text_or_none("error_code")? else { return Ok(None) };
    let code: FailureCode =
        serde_json::from_value(code.into()).map_err(|error| corrupt(id, format!("error_code: {error}")))?;
    let message: Option<String> = row.text_or_none("error_message")?;
    Ok(Some(JobError { code, message: message.unwrap_or_default() }))
}

pub(super) fn claim(row: &impl Columns) -> Result<Claim, StoreError> {
    let id: String = row.text("id")?;
    Ok(Claim {
        id: id.parse().map_err(|error| corrupt(&id, error))?,
        spec: from_json(&id, "spec", &row.text("spec")?)?,
        attempt: attempt(&id, row)?,
        origin: Origin { request_id: row.text_or_none("request_id")?, traceparent: row.text_or_none("traceparent")? },
    })
}

pub(super) fn beat(row: Option<&impl Columns>) -> Result<Beat, StoreError> {
    let Some(row) = row else { return Ok(Beat::Lost) };
    Ok(if row.flag("cancel_requested")? {
        Beat::CancelRequested
    } else if row.flag("pause_requested")? {
        Beat::PauseRequested
    } else {
        Beat::Owned
    })
}

pub(super) fn event(id: &str, row: &impl Columns) -> Result<EventRecord, StoreError> {
    let seq = u64::try_from(row.integer("seq")?).map_err(|error| corrupt(id, format!("seq: {error}")))?;
    let kind: String = row.text("type")?;
    Ok(EventRecord {
        seq,
        at: row.integer("at")?,
        kind: kind.parse().map_err(|error: String| corrupt(id, error))?,
        data: from_json(id, "data", &row.text("data")?)?,
    })
}

/// Of every state, those without jobs included.
pub(super) fn counts(rows: &[impl Columns]) -> Result<Vec<(Status, u64)>, StoreError> {
    let mut counts: Vec<_> = Status::ALL.into_iter().map(|status| (status, 0)).collect();
    for row in rows {
        let found = status("of a count", &row.text("status")?)?;
        let jobs = u64::try_from(row.integer("jobs")?).unwrap_or(0);
        counts.iter_mut().filter(|(of, _)| *of == found).for_each(|(_, count)| *count = jobs);
    }
    Ok(counts)
}

pub(super) fn ended(row: &impl Columns) -> Result<(JobId, Duration), StoreError> {
    let id: String = row.text("id")?;
    let age = Duration::from_millis(u64::try_from(row.integer("age")?).unwrap_or(0));
    Ok((id.parse().map_err(|error| corrupt(&id, error))?, age))
}

/// The job that another one's model comes from.
pub(super) fn source(row: &impl Columns) -> Result<JobId, StoreError> {
    let id: String = row.text("job")?;
    id.parse().map_err(|error| corrupt(&id, error))
}

fn count(row: &impl Columns, name: &str) -> Result<u32, StoreError> {
    Ok(u32::try_from(row.integer(name)?).unwrap_or(u32::MAX))
}

pub(super) fn standing(row: &impl Columns) -> Result<Standing, StoreError> {
    Ok(Standing {
        cancel_requested: row.flag("cancel_requested")?,
        pause_requested: row.flag("pause_requested")?,
        retries: count(row, "retries")?,
        crashes_in_a_row: count(row, "crashes_in_a_row")?,
        memory_needed: size(row.integer("memory_needed")?),
        largest_slot: size(row.integer_or_none("largest_slot")?.unwrap_or(0)),
    })
}

pub(super) fn key(row: &impl Columns) -> Result<KeyRecord, StoreError> {
    let id = row.text("id")?;
    let scopes = row.text("scopes")?;
    let scopes = scopes.split_whitespace().map(str::parse).collect::<Result<_, _>>();
    let scopes = scopes.map_err(|what: String| corrupt(&id, what))?;
    Ok(KeyRecord {
        id,
        tenant: row.text("tenant")?,
        scopes,
        created_at: row.integer("created_at")?,
        expires_at: row.integer_or_none("expires_at")?,
        revoked_at: row.integer_or_none("revoked_at")?,
    })
}

pub(super) fn dataset(row: &impl Columns) -> Result<DatasetRecord, StoreError> {
    let id = row.text("id")?;
    let format = row.text("format")?;
    Ok(DatasetRecord {
        id: id.parse().map_err(|what: String| corrupt(&id, what))?,
        tenant: row.text("tenant")?,
        name: row.text("name")?,
        format: format.parse().map_err(|what: String| corrupt(&id, what))?,
        bytes: total(row)?,
        sha256: row.text("sha256")?,
        created_at: row.integer("created_at")?,
    })
}

/// A sum of lengths.
pub(super) fn total(row: &impl Columns) -> Result<u64, StoreError> {
    Ok(size(row.integer("bytes")?))
}

fn size(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}
