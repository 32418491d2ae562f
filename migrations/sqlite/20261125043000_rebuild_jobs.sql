-- Jobs gain an owner, the request they came from, and the state `paused`. SQLite cannot change a CHECK in place, so the
-- table is copied. Times are milliseconds since 1970-01-01T00:00:00Z on the database's own clock.
CREATE TABLE jobs_rebuilt (
    -- A UUID version 7: the order of ids is the order of submission.
    id               TEXT    NOT NULL PRIMARY KEY,
    -- Whose job it is; nobody else sees it.
    tenant           TEXT    NOT NULL DEFAULT 'default',
    -- The complete spec as JSON.
    spec             TEXT    NOT NULL,
    status           TEXT    NOT NULL
        CHECK (status IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
    -- The last progress reported, as JSON.
    progress         TEXT,
    -- When that last changed, and when its stage began.
    progress_at      INTEGER,
    stage_started_at INTEGER,
    -- How often it was claimed; the fence of every write of an attempt.
    attempt          INTEGER NOT NULL DEFAULT 0,
    -- Failures so far after which it went back to the queue.
    retries          INTEGER NOT NULL DEFAULT 0,
    -- Deaths of its worker process since the last finished step.
    crashes_in_a_row INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    pause_requested  INTEGER NOT NULL DEFAULT 0 CHECK (pause_requested IN (0, 1)),
    created_at       INTEGER NOT NULL,
    -- Not to be claimed before.
    available_at     INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    worker           TEXT,
    lease_expires_at INTEGER,
    error_code       TEXT,
    error_message    TEXT,
    -- The id of the HTTP request that submitted it, and the trace that request was part of.
    request_id       TEXT,
    traceparent      TEXT,
    CHECK ((status = 'running') = (lease_expires_at IS NOT NULL)),
    CHECK ((status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK ((status = 'failed') = (error_code IS NOT NULL))
) STRICT;

INSERT INTO jobs_rebuilt (id, spec, status, progress, attempt, retries, crashes_in_a_row, cancel_requested, created_at,
    available_at, started_at, finished_at, worker, lease_expires_at, error_code, error_message)
SELECT id, spec, status, progress, attempt, retries, crashes_in_a_row, cancel_requested, created_at,
    available_at, started_at, finished_at, worker, lease_expires_at, error_code, error_message
FROM jobs;

DROP TABLE jobs;
ALTER TABLE jobs_rebuilt RENAME TO jobs;

-- Serves the claim (oldest first), the filtered list (newest first) and the counts.
CREATE INDEX jobs_by_status ON jobs (status, id);
-- Serves a tenant's list and the limit of its queue.
CREATE INDEX jobs_by_tenant ON jobs (tenant, status, id);
