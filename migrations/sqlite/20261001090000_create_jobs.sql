-- Times are milliseconds since 1970-01-01T00:00:00Z on the database's own clock.
CREATE TABLE jobs (
    -- A UUID version 7: the order of ids is the order of submission.
    id               TEXT    NOT NULL PRIMARY KEY,
    -- The complete spec as JSON.
    spec             TEXT    NOT NULL,
    status           TEXT    NOT NULL CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    -- The last progress reported, as JSON.
    progress         TEXT,
    -- How often it was claimed; the fence of every write of an attempt.
    attempt          INTEGER NOT NULL DEFAULT 0,
    -- Failures so far after which it went back to the queue.
    retries          INTEGER NOT NULL DEFAULT 0,
    -- Deaths of its worker process since the last finished step.
    crashes_in_a_row INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    created_at       INTEGER NOT NULL,
    -- Not to be claimed before.
    available_at     INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    worker           TEXT,
    lease_expires_at INTEGER,
    error_code       TEXT,
    error_message    TEXT,
    CHECK ((status = 'running') = (lease_expires_at IS NOT NULL)),
    CHECK ((status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK ((status = 'failed') = (error_code IS NOT NULL))
) STRICT;

-- Serves the claim (oldest first), the filtered list (newest first) and the counts.
CREATE INDEX jobs_by_status ON jobs (status, id);
