//! Every statement, as static text. `now!()` is the database's clock in milliseconds; SQLite gives one value per step.

macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}

macro_rules! columns {
    () => {
        "id, spec, status, progress, attempt, cancel_requested, created_at, started_at, finished_at, error_code, error_message"
    };
}

/// A BEGIN that takes the write lock at once, so that no transaction fails half way for want of it.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

pub(super) const VERSION: &str = "SELECT sqlite_version()";

pub(super) const PING: &str = "SELECT id FROM jobs LIMIT 1";

pub(super) const SUBMIT: &str = concat!(
    "INSERT INTO jobs (id, spec, status, created_at, available_at) VALUES (?1, ?2, 'queued', ",
    now!(),
    ", ",
    now!(),
    ") RETURNING ",
    columns!()
);

pub(super) const GET: &str = concat!("SELECT ", columns!(), " FROM jobs WHERE id = ?1");

pub(super) const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM jobs WHERE (?1 IS NULL OR id < ?1) AND (?2 IS NULL OR status = ?2) ORDER BY id DESC LIMIT ?3"
);

pub(super) const COUNTS: &str = "SELECT status, COUNT(*) AS jobs FROM jobs GROUP BY status";

pub(super) const CANCEL: &str = concat!(
    "UPDATE jobs SET status = CASE status WHEN 'queued' THEN 'cancelled' ELSE status END, \
     finished_at = CASE status WHEN 'queued' THEN ",
    now!(),
    " END, cancel_requested = (status = 'running') \
     WHERE id = ?1 AND status IN ('queued', 'running') RETURNING ",
    columns!()
);

/// Nobody is left to stop a cancelled job whose lease lapsed.
pub(super) const CANCEL_LAPSED: &str = concat!(
    "UPDATE jobs SET status = 'cancelled', finished_at = ",
    now!(),
    ", cancel_requested = 0, worker = NULL, lease_expires_at = NULL \
     WHERE status = 'running' AND cancel_requested = 1 AND lease_expires_at <= ",
    now!()
);

/// Each arm finds its oldest job through the index, and the older of the two is taken. A lease may lapse between
/// [`CANCEL_LAPSED`] and this statement, so a cancelled job is passed over here too.
pub(super) const CLAIM: &str = concat!(
    "UPDATE jobs SET status = 'running', attempt = attempt + 1, worker = ?1, lease_expires_at = ",
    now!(),
    " + ?2, started_at = COALESCE(started_at, ",
    now!(),
    ") WHERE id = (SELECT MIN(id) FROM (\
       SELECT id FROM (SELECT id FROM jobs WHERE status = 'queued' AND available_at <= ",
    now!(),
    " ORDER BY id LIMIT 1) UNION ALL \
       SELECT id FROM (SELECT id FROM jobs WHERE status = 'running' AND cancel_requested = 0 AND lease_expires_at <= ",
    now!(),
    " ORDER BY id LIMIT 1))) RETURNING id, spec, attempt"
);

pub(super) const BEAT: &str = concat!(
    "UPDATE jobs SET lease_expires_at = ",
    now!(),
    " + ?4, progress = COALESCE(?3, progress) \
     WHERE id = ?1 AND attempt = ?2 AND status = 'running' RETURNING cancel_requested"
);

pub(super) const STEP_FINISHED: &str = "UPDATE jobs SET crashes_in_a_row = 0 \
     WHERE id = ?1 AND attempt = ?2 AND status = 'running' RETURNING cancel_requested";

pub(super) const STANDING: &str = "SELECT cancel_requested, retries, crashes_in_a_row FROM jobs \
     WHERE id = ?1 AND attempt = ?2 AND status = 'running'";

pub(super) const END: &str = concat!(
    "UPDATE jobs SET status = ?3, error_code = ?4, error_message = ?5, finished_at = ",
    now!(),
    ", cancel_requested = 0, worker = NULL, lease_expires_at = NULL \
     WHERE id = ?1 AND attempt = ?2 AND status = 'running'"
);

pub(super) const REQUEUE: &str = concat!(
    "UPDATE jobs SET status = 'queued', available_at = ",
    now!(),
    " + ?3, retries = ?4, crashes_in_a_row = ?5, worker = NULL, lease_expires_at = NULL \
     WHERE id = ?1 AND attempt = ?2 AND status = 'running'"
);
