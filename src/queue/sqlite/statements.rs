//! Every statement about jobs, as static text. `now!()` is the database's clock in milliseconds; SQLite gives one value
//! per step. Events are written by triggers, see `migrations/sqlite`.

macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}
pub(super) use now;

macro_rules! columns {
    () => {
        "id, tenant, spec, status, progress, progress_at, stage_started_at, attempt, cancel_requested, pause_requested, created_at, started_at, \
         finished_at, error_code, error_message, memory_needed, \
         (SELECT MAX(memory) FROM workers WHERE seen_at > CAST(unixepoch('subsec') * 1000 AS INTEGER) - 60000) AS largest_slot"
    };
}

/// A BEGIN that takes the write lock at once, so that no transaction fails half way for want of it.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

pub(super) const VERSION: &str = "SELECT sqlite_version()";

pub(super) const PING: &str = "SELECT id FROM jobs LIMIT 1";

pub(super) const SUBMIT: &str = concat!(
    "INSERT INTO jobs (id, spec, status, tenant, request_id, traceparent, priority, memory_needed, created_at, \
       available_at) VALUES (?1, ?2, 'queued', ?3, ?4, ?5, ?6, ?7, ",
    now!(),
    ", ",
    now!(),
    ") RETURNING ",
    columns!()
);

pub(super) const TABLES: &str = "SELECT name FROM sqlite_master WHERE type = 'table'";

pub(super) const WAITING: &str = "SELECT COUNT(*) AS service, COALESCE(SUM(tenant = ?1), 0) AS tenant \
     FROM jobs WHERE status = 'queued'";

/// Keys are kept for seven days.
pub(super) const FORGET_KEYS: &str =
    concat!("DELETE FROM idempotency_keys WHERE created_at < ", now!(), " - 7 * 24 * 60 * 60 * 1000");

pub(super) const FIND_KEY: &str = "SELECT fingerprint, job FROM idempotency_keys WHERE tenant = ?1 AND key = ?2";

pub(super) const REMEMBER_KEY: &str = concat!(
    "INSERT INTO idempotency_keys (tenant, key, fingerprint, job, created_at) VALUES (?1, ?2, ?3, ?4, ",
    now!(),
    ")"
);

pub(super) const GET: &str = concat!("SELECT ", columns!(), " FROM jobs WHERE id = ?1");

/// A job is listed unless one of the wanted labels, ?5 as a JSON object, is not among its own.
pub(super) const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM jobs WHERE (?1 IS NULL OR id < ?1) AND (?2 IS NULL OR status = ?2) AND (?4 IS NULL OR tenant = ?4) \
     AND NOT EXISTS (SELECT 1 FROM json_each(?5) AS wanted WHERE NOT EXISTS (\
       SELECT 1 FROM json_each(spec, '$.metadata') AS label \
       WHERE label.key = wanted.key AND label.value = wanted.value)) \
     ORDER BY id DESC LIMIT ?3"
);

pub(super) const EVENTS: &str =
    "SELECT seq, at, type, data FROM events WHERE job = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";

pub(super) const COUNTS: &str = "SELECT status, COUNT(*) AS jobs FROM jobs GROUP BY status";

pub(super) const ENDED: &str = concat!(
    "SELECT id, ",
    now!(),
    " - finished_at AS age FROM jobs WHERE finished_at IS NOT NULL ORDER BY finished_at, id"
);

/// Models that are what another job published, without the prefix.
pub(super) const MODELS_IN_USE: &str = "SELECT DISTINCT substr(spec ->> '$.model', 5) AS job FROM jobs \
     WHERE status IN ('queued', 'running', 'paused') AND spec ->> '$.model' GLOB 'job:*'";

pub(super) const CANCEL: &str = concat!(
    "UPDATE jobs SET status = CASE status WHEN 'running' THEN status ELSE 'cancelled' END, \
     finished_at = CASE status WHEN 'running' THEN NULL ELSE ",
    now!(),
    " END, cancel_requested = (status = 'running') \
     WHERE id = ?1 AND status IN ('queued', 'running', 'paused') RETURNING ",
    columns!()
);

pub(super) const PAUSE: &str = concat!(
    "UPDATE jobs SET status = CASE status WHEN 'queued' THEN 'paused' ELSE status END, \
     pause_requested = (status = 'running') \
     WHERE id = ?1 AND status IN ('queued', 'running', 'paused') RETURNING ",
    columns!()
);

/// A failed job starts its counts of failures again: somebody has seen it and may have mended what was wrong.
pub(super) const RESUME: &str = concat!(
    "UPDATE jobs SET status = CASE status WHEN 'running' THEN status ELSE 'queued' END, pause_requested = 0, \
     available_at = ",
    now!(),
    ", retries = CASE status WHEN 'failed' THEN 0 ELSE retries END, \
     crashes_in_a_row = CASE status WHEN 'failed' THEN 0 ELSE crashes_in_a_row END, \
     finished_at = NULL, error_code = NULL, error_message = NULL \
     WHERE id = ?1 AND status IN ('queued', 'running', 'paused', 'failed') RETURNING ",
    columns!()
);

pub(super) const DELETE: &str =
    "DELETE FROM jobs WHERE id = ?1 AND status IN ('succeeded', 'failed', 'cancelled') RETURNING status";

/// Nobody is left to stop a cancelled or paused job whose lease lapsed.
pub(super) const STOP_LAPSED: &str = concat!(
    "UPDATE jobs SET status = CASE cancel_requested WHEN 1 THEN 'cancelled' ELSE 'paused' END, \
     finished_at = CASE cancel_requested WHEN 1 THEN ",
    now!(),
    " END, cancel_requested = 0, pause_requested = 0, worker = NULL, lease_expires_at = NULL \
     WHERE status = 'running' AND (cancel_requested = 1 OR pause_requested = 1) AND lease_expires_at <= ",
    now!()
);

pub(super) const EXPIRE_LEASES: &str =
    concat!("UPDATE jobs SET lease_expires_at = ", now!(), " WHERE status = 'running' AND lease_expires_at > ", now!());

/// A job whose lease lapsed, else one that waits and has room in `?3` bytes: of the tenant with the fewest running jobs, of
/// those that wait longest for their turn, the job of the highest priority, the oldest of them. A lease may lapse between
/// [`STOP_LAPSED`] and this statement, so a job that is to stop is passed over here too. The tenants that wait are found
/// by a step through the index for each.
pub(super) const CLAIM: &str = concat!(
    "WITH RECURSIVE tenants (tenant) AS (SELECT MIN(tenant) FROM jobs WHERE status = 'queued' UNION ALL \
       SELECT (SELECT MIN(jobs.tenant) FROM jobs WHERE status = 'queued' AND jobs.tenant > tenants.tenant) \
       FROM tenants WHERE tenants.tenant IS NOT NULL), \
     heads AS (SELECT \
       (SELECT COUNT(*) FROM jobs WHERE jobs.tenant = tenants.tenant AND status = 'running') AS running, \
       (SELECT MAX(started_at) FROM jobs WHERE jobs.tenant = tenants.tenant AND started_at IS NOT NULL) AS served, \
       (SELECT id FROM jobs WHERE jobs.tenant = tenants.tenant AND status = 'queued' AND memory_needed <= ?3 \
         AND available_at <= ",
    now!(),
    " ORDER BY priority DESC, id LIMIT 1) AS id FROM tenants WHERE tenants.tenant IS NOT NULL) \
     UPDATE jobs SET status = 'running', attempt = attempt + 1, worker = ?1, lease_expires_at = ",
    now!(),
    " + ?2, started_at = COALESCE(started_at, ",
    now!(),
    ") WHERE id = COALESCE(\
       (SELECT id FROM jobs WHERE status = 'running' AND cancel_requested = 0 AND pause_requested = 0 \
         AND memory_needed <= ?3 AND lease_expires_at <= ",
    now!(),
    " ORDER BY id LIMIT 1), \
       (SELECT id FROM heads WHERE id IS NOT NULL ORDER BY running, served, id LIMIT 1)) \
     RETURNING id, spec, attempt, request_id, traceparent"
);

/// Those that have not been heard of for a day are forgotten, before the statement that follows.
pub(super) const FORGET_WORKERS: &str =
    concat!("DELETE FROM workers WHERE seen_at < ", now!(), " - 24 * 60 * 60 * 1000");

pub(super) const ANNOUNCE: &str = concat!(
    "INSERT INTO workers (name, memory, seen_at) VALUES (?1, ?2, ",
    now!(),
    ") ON CONFLICT (name) DO UPDATE SET memory = excluded.memory, seen_at = excluded.seen_at"
);

pub(super) const WITHDRAW: &str = "DELETE FROM workers WHERE name = ?1";

pub(super) const BEAT: &str = concat!(
    "UPDATE jobs SET lease_expires_at = ",
    now!(),
    " + ?4, progress = COALESCE(?3, progress), \
     progress_at = CASE WHEN ?3 IS NULL OR ?3 IS progress THEN progress_at ELSE ",
    now!(),
    " END, \
     stage_started_at = CASE WHEN ?3 IS NULL OR ?3 ->> '$.stage' IS progress ->> '$.stage' THEN stage_started_at ELSE ",
    now!(),
    " END \
     WHERE id = ?1 AND attempt = ?2 AND status = 'running' RETURNING cancel_requested, pause_requested"
);

pub(super) const STEP_FINISHED: &str = "UPDATE jobs SET crashes_in_a_row = 0 \
     WHERE id = ?1 AND attempt = ?2 AND status = 'running' RETURNING cancel_requested, pause_requested";

pub(super) const STANDING: &str = concat!(
    "SELECT cancel_requested, pause_requested, retries, crashes_in_a_row, memory_needed, \
       (SELECT MAX(memory) FROM workers WHERE seen_at > ",
    now!(),
    " - 60000) AS largest_slot FROM jobs WHERE id = ?1 AND attempt = ?2 AND status = 'running'"
);

pub(super) const END: &str = concat!(
    "UPDATE jobs SET status = ?3, error_code = ?4, error_message = ?5, finished_at = ",
    now!(),
    ", cancel_requested = 0, pause_requested = 0, worker = NULL, lease_expires_at = NULL \
     WHERE id = ?1 AND attempt = ?2 AND status = 'running'"
);

pub(super) const SET_ASIDE: &str = concat!(
    "UPDATE jobs SET status = ?3, available_at = ",
    now!(),
    " + ?4, retries = ?5, crashes_in_a_row = ?6, memory_needed = ?7, pause_requested = 0, worker = NULL, lease_expires_at = NULL \
     WHERE id = ?1 AND attempt = ?2 AND status = 'running'"
);
