//! How an attempt ends: the decision in one place, then one fenced UPDATE.

use std::time::Duration;

use sqlx::{Row as _, Sqlite, Transaction};

use super::milliseconds;
use crate::{
    job::{Decision, Failure, Status},
    queue::{Claim, MOST_CRASHES, MOST_RETRIES, Outcome, StoreError},
};

/// Pause before the first retry; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

const SELECT_ATTEMPT: &str = "SELECT cancel_requested, crashes, retries FROM jobs WHERE id = ? AND attempt = ? AND status = 'running'";

const END_ATTEMPT: &str = "UPDATE jobs SET status = ?1, worker = NULL, lease_until = NULL, crashes = ?2, retries = ?3,
    error_code = ?4, error_message = ?5, available_at = clock.now + ?6,
    finished_at = CASE ?1 WHEN 'queued' THEN NULL ELSE clock.now END
    FROM (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now) AS clock
    WHERE id = ?7 AND attempt = ?8 AND status = 'running'";

/// What the row says of the attempts so far.
struct History {
    cancel_requested: bool,
    crashes: u32,
    retries: u32,
}

/// What the row is to say.
struct Next<'a> {
    status: Status,
    crashes: u32,
    retries: u32,
    error: Option<&'a Failure>,
    pause: Duration,
}

pub(super) async fn settle(transaction: &mut Transaction<'_, Sqlite>, claim: &Claim, outcome: &Outcome) -> Result<bool, StoreError> {
    let query = sqlx::query(SELECT_ATTEMPT).bind(claim.id.to_string()).bind(claim.attempt);
    let Some(row) = query.fetch_optional(&mut **transaction).await? else { return Ok(false) };
    let history = History { cancel_requested: row.try_get("cancel_requested")?, crashes: row.try_get("crashes")?, retries: row.try_get("retries")? };
    let next = decide(&history, outcome);
    let changed = sqlx::query(END_ATTEMPT)
        .bind(next.status.as_str())
        .bind(next.crashes)
        .bind(next.retries)
        .bind(next.error.map(|failure| failure.code.as_str()))
        .bind(next.error.map(|failure| failure.message.as_str()))
        .bind(milliseconds(next.pause))
        .bind(claim.id.to_string())
        .bind(claim.attempt)
        .execute(&mut **transaction)
        .await?;
    Ok(changed.rows_affected() == 1)
}

/// A success stands even when a cancel was asked for; anything else gives way to the cancel.
fn decide<'a>(history: &History, outcome: &'a Outcome) -> Next<'a> {
    let History { cancel_requested, crashes, retries } = *history;
    let end = |status, error| Next { status, crashes, retries, error, pause: Duration::ZERO };
    let again = |crashes, retries, pause| Next { status: Status::Queued, crashes, retries, error: None, pause };
    match outcome {
        Outcome::Succeeded => end(Status::Succeeded, None),
        Outcome::Cancelled => end(Status::Cancelled, None),
        Outcome::Released | Outcome::Failed(_) | Outcome::Crashed(_) if cancel_requested => end(Status::Cancelled, None),
        Outcome::Released => again(crashes, retries, Duration::ZERO),
        Outcome::Failed(failure) => match failure.decision {
            Decision::Retry if retries < MOST_RETRIES => again(crashes, retries + 1, FIRST_PAUSE * 2_u32.pow(retries)),
            Decision::Retry | Decision::GiveUp => end(Status::Failed, Some(failure)),
        },
        Outcome::Crashed(failure) if crashes + 1 >= MOST_CRASHES => Next { crashes: crashes + 1, ..end(Status::Failed, Some(failure)) },
        Outcome::Crashed(_) => again(crashes + 1, retries, Duration::ZERO),
    }
}
