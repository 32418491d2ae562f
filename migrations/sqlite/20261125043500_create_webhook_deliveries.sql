-- Events that wait to be told to the URL their job names. A trigger files them in the transaction of the event, so that
-- none is lost, whatever stops when.
CREATE TABLE webhook_deliveries (
    -- The webhook-id: the same in every try.
    id       TEXT    NOT NULL PRIMARY KEY,
    job      TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq      INTEGER NOT NULL,
    -- Tries so far.
    attempts INTEGER NOT NULL DEFAULT 0,
    -- Not to be tried before; null once it is delivered or given up.
    due_at   INTEGER
) STRICT;

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_deliveries_by_job ON webhook_deliveries (job);

CREATE TRIGGER webhook_deliveries_of_events AFTER INSERT ON events
WHEN NEW.type IN ('job.started', 'job.succeeded', 'job.failed', 'job.cancelled')
BEGIN
    INSERT INTO webhook_deliveries (id, job, seq, due_at)
    SELECT 'msg_' || lower(hex(randomblob(16))), NEW.job, NEW.seq, NEW.at FROM jobs
    WHERE id = NEW.job AND spec ->> '$.webhook_url' IS NOT NULL;
END;
