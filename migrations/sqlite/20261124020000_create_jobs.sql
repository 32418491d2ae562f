-- Jobs and their leases. Times are milliseconds since 1970 on this database's clock.
CREATE TABLE jobs (
    id               TEXT    NOT NULL PRIMARY KEY, -- UUID version 7: sorts by submission
    spec             TEXT    NOT NULL,             -- complete JSON
    status           TEXT    NOT NULL,
    progress         TEXT,                         -- JSON of the last report
    attempt          INTEGER NOT NULL DEFAULT 0,   -- the fence: every write of a worker carries it
    crashes          INTEGER NOT NULL DEFAULT 0,   -- child deaths since a step was finished
    retries          INTEGER NOT NULL DEFAULT 0,   -- failures that were worth another try
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    worker           TEXT,                         -- who holds the lease
    lease_until      INTEGER,
    available_at     INTEGER NOT NULL,             -- not to be claimed before
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    error_code       TEXT,
    error_message    TEXT
) STRICT;

CREATE INDEX jobs_by_status ON jobs (status, id);
CREATE INDEX jobs_by_lease ON jobs (lease_until) WHERE status = 'running';
