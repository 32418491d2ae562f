-- Times are milliseconds since 1970-01-01T00:00:00Z on the database's own clock, as it stood when a statement arrived.
CREATE FUNCTION graspd_now() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (extract(epoch FROM statement_timestamp()) * 1000)::bigint;

CREATE TABLE jobs (
    -- A UUID version 7: the order of ids is the order of submission.
    id               text    COLLATE "C" NOT NULL PRIMARY KEY,
    -- Whose job it is; nobody else sees it.
    tenant           text    NOT NULL,
    -- The complete spec as JSON. It is never taken apart here: what a statement needs of it has a column of its own.
    spec             text    NOT NULL,
    model            text    NOT NULL,
    webhook_url      text,
    metadata         jsonb   NOT NULL,
    status           text    NOT NULL
        CHECK (status IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
    -- The last progress reported, as JSON.
    progress         text,
    -- When that last changed, and when its stage began.
    progress_at      bigint,
    stage_started_at bigint,
    -- How often it was claimed; the fence of every write of an attempt.
    attempt          bigint  NOT NULL DEFAULT 0,
    -- Failures so far after which it went back to the queue.
    retries          bigint  NOT NULL DEFAULT 0,
    -- Deaths of its worker process since the last finished step.
    crashes_in_a_row bigint  NOT NULL DEFAULT 0,
    cancel_requested boolean NOT NULL DEFAULT false,
    pause_requested  boolean NOT NULL DEFAULT false,
    created_at       bigint  NOT NULL,
    -- Not to be claimed before.
    available_at     bigint  NOT NULL,
    started_at       bigint,
    finished_at      bigint,
    worker           text,
    lease_expires_at bigint,
    error_code       text,
    error_message    text,
    -- The id of the HTTP request that submitted it, and the trace that request was part of.
    request_id       text,
    traceparent      text,
    CHECK ((status = 'running') = (lease_expires_at IS NOT NULL)),
    CHECK ((status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK ((status = 'failed') = (error_code IS NOT NULL))
)
-- Room beside each row, so that a beat, which changes no column of an index, leaves the indexes alone; and a broom that
-- comes early, because every job leaves a few dead versions of its row where the next claim looks.
WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

-- Serves the claim (oldest first). What runs is as many jobs as there are slots, and lapsed leases are found among them.
CREATE INDEX jobs_queued ON jobs (id) WHERE status = 'queued';
CREATE INDEX jobs_running ON jobs (id) WHERE status = 'running';
-- Serves the filtered list (newest first) and the counts.
CREATE INDEX jobs_by_status ON jobs (status, id);
-- Serves a tenant's list and the limit of its queue.
CREATE INDEX jobs_by_tenant ON jobs (tenant, status, id);
-- Serves retention.
CREATE INDEX jobs_ended ON jobs (finished_at, id) WHERE finished_at IS NOT NULL;
