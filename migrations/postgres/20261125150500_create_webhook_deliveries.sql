-- Events that wait to be told to the URL their job names. A trigger files them in the transaction of the event, so that
-- none is lost, whatever stops when.
CREATE TABLE webhook_deliveries (
    -- The webhook-id: the same in every try.
    id       text   NOT NULL PRIMARY KEY,
    job      text   COLLATE "C" NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq      bigint NOT NULL,
    -- Tries so far.
    attempts bigint NOT NULL DEFAULT 0,
    -- Not to be tried before; null once it is delivered or given up.
    due_at   bigint
);

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX webhook_deliveries_by_job ON webhook_deliveries (job);

CREATE FUNCTION graspd_file_delivery() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhook_deliveries (id, job, seq, due_at)
    SELECT 'msg_' || replace(gen_random_uuid()::text, '-', ''), NEW.job, NEW.seq, NEW.at FROM jobs
    WHERE id = NEW.job AND webhook_url IS NOT NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER webhook_deliveries_of_events AFTER INSERT ON events
    FOR EACH ROW WHEN (NEW.type IN ('job.started', 'job.succeeded', 'job.failed', 'job.cancelled'))
    EXECUTE FUNCTION graspd_file_delivery();
