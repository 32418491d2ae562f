-- What happened to each job, numbered 1, 2, 3, … without a gap. Triggers append in the transaction that changes the job,
-- so that no code path can change one and forget the other.
CREATE TABLE events (
    job  TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq  INTEGER NOT NULL,
    at   INTEGER NOT NULL,
    type TEXT    NOT NULL,
    -- JSON, by type.
    data TEXT    NOT NULL,
    PRIMARY KEY (job, seq)
) STRICT, WITHOUT ROWID;

INSERT INTO events (job, seq, at, type, data) SELECT id, 1, created_at, 'job.queued', '{}' FROM jobs;

CREATE TRIGGER events_of_submission AFTER INSERT ON jobs
BEGIN
    INSERT INTO events (job, seq, at, type, data) VALUES (NEW.id, 1, NEW.created_at, 'job.queued', '{}');
END;

CREATE TRIGGER events_of_status AFTER UPDATE OF status, attempt ON jobs
WHEN NEW.status IS NOT OLD.status OR NEW.attempt IS NOT OLD.attempt
BEGIN
    INSERT INTO events (job, seq, at, type, data)
    SELECT NEW.id, 1 + COALESCE(MAX(seq), 0), CAST(unixepoch('subsec') * 1000 AS INTEGER),
        CASE NEW.status WHEN 'running' THEN 'job.started' ELSE 'job.' || NEW.status END,
        CASE NEW.status
            WHEN 'running' THEN json_object('attempt', NEW.attempt)
            WHEN 'failed' THEN json_object('code', NEW.error_code, 'message', NEW.error_message)
            ELSE '{}'
        END
    FROM events WHERE job = NEW.id;
END;

CREATE TRIGGER events_of_requests AFTER UPDATE OF cancel_requested, pause_requested ON jobs
WHEN NEW.cancel_requested > OLD.cancel_requested OR NEW.pause_requested > OLD.pause_requested
BEGIN
    INSERT INTO events (job, seq, at, type, data)
    SELECT NEW.id, 1 + COALESCE(MAX(seq), 0), CAST(unixepoch('subsec') * 1000 AS INTEGER),
        CASE WHEN NEW.cancel_requested > OLD.cancel_requested
            THEN 'job.cancel_requested' ELSE 'job.pause_requested' END,
        '{}'
    FROM events WHERE job = NEW.id;
END;

-- Progress is written every second; of it those events remain that a reader would miss: a new stage, a new layer, and
-- every twentieth of a stage.
CREATE TRIGGER events_of_progress AFTER UPDATE OF progress ON jobs
WHEN NEW.progress IS NOT NULL AND (
    OLD.progress IS NULL
    OR NEW.progress ->> '$.stage' IS NOT OLD.progress ->> '$.stage'
    OR NEW.progress ->> '$.layer' IS NOT OLD.progress ->> '$.layer'
    OR 20 * (NEW.progress ->> '$.done') / MAX(NEW.progress ->> '$.total', 1)
        IS NOT 20 * (OLD.progress ->> '$.done') / MAX(OLD.progress ->> '$.total', 1))
BEGIN
    INSERT INTO events (job, seq, at, type, data)
    SELECT NEW.id, 1 + COALESCE(MAX(seq), 0), CAST(unixepoch('subsec') * 1000 AS INTEGER), 'job.progress', NEW.progress
    FROM events WHERE job = NEW.id;
END;
