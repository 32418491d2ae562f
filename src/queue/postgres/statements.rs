//! Every statement about jobs, as static text. `graspd_now()` is the database's clock in milliseconds as it stood when
//! the statement arrived. Events are written by triggers, see `migrations/postgres`.

macro_rules! columns {
    () => {
        "id, tenant, spec, status, progress, progress_at, stage_started_at, attempt, cancel_requested, \
         pause_requested, created_at, started_at, finished_at, error_code, error_message, \
         memory_needed, (SELECT MAX(memory) FROM workers WHERE seen_at > graspd_now() - 60000) AS largest_slot"
    };
}

pub(super) const PING: &str = "SELECT id FROM jobs LIMIT 1";

pub(super) const NOTIFY: &str = "SELECT pg_notify('graspd', '')";

pub(super) const SUBMIT: &str = concat!(
    "INSERT INTO jobs (id, spec, status, tenant, request_id, traceparent, model, webhook_url, metadata, priority, \
       memory_needed, created_at, available_at) \
     VALUES ($1, $2, 'queued', $3, $4, $5, $6, $7, $8::jsonb, $9, $10, graspd_now(), graspd_now()) RETURNING ",
    columns!()
);

/// Counts no further than the limits, which a longer queue would only make slower.
pub(super) const WAITING: &str = "SELECT \
       (SELECT COUNT(*) FROM (SELECT 1 FROM jobs WHERE status = 'queued' LIMIT $2) AS all_of_them) AS service, \
       (SELECT COUNT(*) FROM (SELECT 1 FROM jobs WHERE status = 'queued' AND tenant = $1 LIMIT $3) AS theirs) AS tenant";

/// Requests with the same key wait for each other; the lock ends with the transaction.
pub(super) const LOCK_KEY: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 0))";

/// Keys are kept for seven days.
pub(super) const FORGET_KEYS: &str =
    "DELETE FROM idempotency_keys WHERE created_at < graspd_now() - 7 * 24 * 60 * 60 * 1000::bigint";

pub(super) const FIND_KEY: &str = "SELECT fingerprint, job FROM idempotency_keys WHERE tenant = $1 AND key = $2";

pub(super) const REMEMBER_KEY: &str = "INSERT INTO idempotency_keys (tenant, key, fingerprint, job, created_at) \
     VALUES ($1, $2, $3, $4, graspd_now())";

pub(super) const GET: &str = concat!("SELECT ", columns!(), " FROM jobs WHERE id = $1");

pub(super) const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM jobs WHERE ($1::text IS NULL OR id < $1) AND ($2::text IS NULL OR status = $2) \
     AND ($4::text IS NULL OR tenant = $4) AND metadata @> $5::jsonb ORDER BY id DESC LIMIT $3"
);

pub(super) const EVENTS: &str =
    "SELECT seq, at, type, data FROM events WHERE job = $1 AND seq > $2 ORDER BY seq LIMIT $3";

pub(super) const COUNTS: &str = "SELECT status, COUNT(*) AS jobs FROM jobs GROUP BY status";

pub(super) const ENDED: &str =
    "SELECT id, graspd_now() - finished_at AS age FROM jobs WHERE finished_at IS NOT NULL ORDER BY finished_at, id";

/// Models that are what another job published, without the prefix.
pub(super) const MODELS_IN_USE: &str = "SELECT DISTINCT substr(model, 5) AS job FROM jobs \
     WHERE status IN ('queued', 'running', 'paused') AND model LIKE 'job:%'";

pub(super) const CANCEL: &str = concat!(
    "UPDATE jobs SET status = CASE status WHEN 'running' THEN status ELSE 'cancelled' END, \
     finished_at = CASE status WHEN 'running' THEN NULL ELSE graspd_now() END, cancel_requested = (status = 'running') \
     WHERE id = $1 AND status IN ('queued', 'running', 'paused') RETURNING ",
    columns!()
);

pub(super) const PAUSE: &str = concat!(
    "UPDATE jobs SET status = CASE status WHEN 'queued' THEN 'paused' ELSE status END, \
     pause_requested = (status = 'running') \
     WHERE id = $1 AND status IN ('queued', 'running', 'paused') RETURNING ",
    columns!()
);

/// A failed job starts its counts of failures again: somebody has seen it and may have mended what was wrong.
pub(super) const RESUME: &str = concat!(
    "UPDATE jobs SET status = CASE status WHEN 'running' THEN status ELSE 'queued' END, pause_requested = false, \
     available_at = graspd_now(), retries = CASE status WHEN 'failed' THEN 0 ELSE retries END, \
     crashes_in_a_row = CASE status WHEN 'failed' THEN 0 ELSE crashes_in_a_row END, \
     finished_at = NULL, error_code = NULL, error_message = NULL \
     WHERE id = $1 AND status IN ('queued', 'running', 'paused', 'failed') RETURNING ",
    columns!()
);

pub(super) const DELETE: &str =
    "DELETE FROM jobs WHERE id = $1 AND status IN ('succeeded', 'failed', 'cancelled') RETURNING status";

/// Takes a job whose lease lapsed, or one that waits and has room in `$3` bytes: of the tenant with the fewest running
/// jobs, of those that wait longest for their turn, the job of the highest priority, the oldest of them. Rows that
/// somebody else is taking at this moment are passed over. Nobody is left to stop a cancelled or paused job whose lease
/// lapsed: it is stopped on the way.
///
/// Of a thousand running jobs, all are read only where that may change the choice: for lapsed leases in every tenth claim
/// while jobs wait, for the turns of tenants where several wait. The tenants that wait are found by a step through the
/// index for each.
pub(super) const CLAIM: &str = "WITH RECURSIVE \
     tenants (tenant) AS ((SELECT tenant FROM jobs WHERE status = 'queued' ORDER BY tenant LIMIT 1) UNION ALL \
       SELECT (SELECT jobs.tenant FROM jobs WHERE status = 'queued' AND jobs.tenant > tenants.tenant \
         ORDER BY jobs.tenant LIMIT 1) FROM tenants WHERE tenants.tenant IS NOT NULL), \
     running AS MATERIALIZED (SELECT id, tenant, lease_expires_at <= (SELECT graspd_now()) AND (memory_needed <= $3 \
       OR cancel_requested OR pause_requested) AS lapsed FROM jobs WHERE status = 'running'), \
     lapsed AS MATERIALIZED (SELECT id, cancel_requested, pause_requested FROM jobs \
       WHERE (SELECT (random() < 0.1 OR NOT EXISTS (SELECT 1 FROM jobs WHERE status = 'queued' \
         AND available_at <= (SELECT graspd_now()) AND memory_needed <= $3)) AND EXISTS (SELECT 1 FROM running WHERE lapsed)) \
       AND id = ANY (ARRAY(SELECT id FROM running WHERE lapsed LIMIT 16)) \
       AND status = 'running' AND lease_expires_at <= (SELECT graspd_now()) LIMIT 1 FOR UPDATE SKIP LOCKED), \
     stopped AS (UPDATE jobs SET status = CASE WHEN jobs.cancel_requested THEN 'cancelled' ELSE 'paused' END, \
       finished_at = CASE WHEN jobs.cancel_requested THEN graspd_now() END, cancel_requested = false, \
       pause_requested = false, worker = NULL, lease_expires_at = NULL \
       FROM lapsed WHERE jobs.id = lapsed.id AND (lapsed.cancel_requested OR lapsed.pause_requested)), \
     left_behind AS (SELECT id FROM lapsed WHERE NOT cancel_requested AND NOT pause_requested), \
     turns AS MATERIALIZED (SELECT tenants.tenant FROM tenants \
       LEFT JOIN (SELECT tenant, COUNT(*) AS jobs FROM running WHERE (SELECT COUNT(tenant) > 1 FROM tenants) GROUP BY tenant) AS at_work USING (tenant) \
       WHERE tenants.tenant IS NOT NULL AND NOT EXISTS (SELECT 1 FROM left_behind) ORDER BY COALESCE(at_work.jobs, 0), \
       (SELECT MAX(started_at) FROM jobs WHERE jobs.tenant = tenants.tenant) NULLS FIRST, \
       (SELECT id FROM jobs WHERE jobs.tenant = tenants.tenant AND status = 'queued' ORDER BY priority DESC, id LIMIT 1)), \
     waiting AS MATERIALIZED (SELECT head.id FROM turns CROSS JOIN LATERAL (SELECT id FROM jobs \
       WHERE jobs.tenant = turns.tenant AND status = 'queued' AND available_at <= graspd_now() AND memory_needed <= $3 \
       ORDER BY priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED) AS head LIMIT 1) \
     UPDATE jobs SET status = 'running', attempt = attempt + 1, worker = $1, lease_expires_at = graspd_now() + $2, \
       started_at = COALESCE(started_at, graspd_now()) \
     FROM (SELECT id FROM left_behind UNION ALL SELECT id FROM waiting) AS found WHERE jobs.id = found.id \
     RETURNING jobs.id, spec, attempt, request_id, traceparent";

/// Those that have not been heard of for a day are forgotten on the way.
pub(super) const ANNOUNCE: &str = "WITH forgotten AS (DELETE FROM workers \
       WHERE seen_at < graspd_now() - 24 * 60 * 60 * 1000::bigint AND name <> $1) \
     INSERT INTO workers (name, memory, seen_at) VALUES ($1, $2, graspd_now()) \
     ON CONFLICT (name) DO UPDATE SET memory = excluded.memory, seen_at = excluded.seen_at";

pub(super) const WITHDRAW: &str = "DELETE FROM workers WHERE name = $1";

pub(super) const BEAT: &str = "UPDATE jobs SET lease_expires_at = graspd_now() + $4, progress = COALESCE($3, progress), \
     progress_at = CASE WHEN $3::text IS NULL OR $3 IS NOT DISTINCT FROM progress THEN progress_at \
       ELSE graspd_now() END, \
     stage_started_at = CASE WHEN $3::text IS NULL \
       OR $3::json ->> 'stage' IS NOT DISTINCT FROM progress::json ->> 'stage' THEN stage_started_at \
       ELSE graspd_now() END \
     WHERE id = $1 AND attempt = $2 AND status = 'running' RETURNING cancel_requested, pause_requested";

pub(super) const STEP_FINISHED: &str = "UPDATE jobs SET crashes_in_a_row = 0 \
     WHERE id = $1 AND attempt = $2 AND status = 'running' RETURNING cancel_requested, pause_requested";

pub(super) const STANDING: &str = "SELECT cancel_requested, pause_requested, retries, crashes_in_a_row, memory_needed, \
       (SELECT MAX(memory) FROM workers WHERE seen_at > graspd_now() - 60000) AS largest_slot FROM jobs \
     WHERE id = $1 AND attempt = $2 AND status = 'running' FOR UPDATE";

pub(super) const END: &str = "UPDATE jobs SET status = $3, error_code = $4, error_message = $5, \
     finished_at = graspd_now(), cancel_requested = false, pause_requested = false, worker = NULL, \
     lease_expires_at = NULL WHERE id = $1 AND attempt = $2 AND status = 'running' RETURNING id";

pub(super) const SET_ASIDE: &str = "UPDATE jobs SET status = $3, available_at = graspd_now() + $4, retries = $5, \
     crashes_in_a_row = $6, memory_needed = $7, pause_requested = false, worker = NULL, lease_expires_at = NULL \
     WHERE id = $1 AND attempt = $2 AND status = 'running'";
