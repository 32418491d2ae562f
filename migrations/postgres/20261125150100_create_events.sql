-- What happened to each job, numbered 1, 2, 3, … without a gap. Triggers append in the transaction that changes the job,
-- so that no code path can change one and forget the other; that transaction holds the job's row, so that no two
-- numbers are the same.
CREATE TABLE events (
    job  text   COLLATE "C" NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq  bigint NOT NULL,
    at   bigint NOT NULL,
    type text   NOT NULL,
    -- JSON, by type.
    data text   NOT NULL,
    PRIMARY KEY (job, seq)
);

CREATE FUNCTION graspd_note(job_id text, kind text, details text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO events (job, seq, at, type, data)
    SELECT job_id, 1 + COALESCE(MAX(seq), 0), graspd_now(), kind, details FROM events WHERE job = job_id
$$;

CREATE FUNCTION graspd_note_submission() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (job, seq, at, type, data) VALUES (NEW.id, 1, NEW.created_at, 'job.queued', '{}');
    RETURN NULL;
END $$;

CREATE TRIGGER events_of_submission AFTER INSERT ON jobs
    FOR EACH ROW EXECUTE FUNCTION graspd_note_submission();

CREATE FUNCTION graspd_note_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM graspd_note(
        NEW.id,
        CASE NEW.status WHEN 'running' THEN 'job.started' ELSE 'job.' || NEW.status END,
        CASE NEW.status
            WHEN 'running' THEN json_build_object('attempt', NEW.attempt)::text
            WHEN 'failed' THEN json_build_object('code', NEW.error_code, 'message', NEW.error_message)::text
            ELSE '{}'
        END);
    RETURN NULL;
END $$;

CREATE TRIGGER events_of_status AFTER UPDATE OF status, attempt ON jobs
    FOR EACH ROW WHEN (NEW.status IS DISTINCT FROM OLD.status OR NEW.attempt IS DISTINCT FROM OLD.attempt)
    EXECUTE FUNCTION graspd_note_status();

CREATE FUNCTION graspd_note_request() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM graspd_note(
        NEW.id,
        CASE WHEN NEW.cancel_requested > OLD.cancel_requested THEN 'job.cancel_requested' ELSE 'job.pause_requested' END,
        '{}');
    RETURN NULL;
END $$;

CREATE TRIGGER events_of_requests AFTER UPDATE OF cancel_requested, pause_requested ON jobs
    FOR EACH ROW
    WHEN (NEW.cancel_requested > OLD.cancel_requested OR NEW.pause_requested > OLD.pause_requested)
    EXECUTE FUNCTION graspd_note_request();

-- Progress is written every second; of it those events remain that a reader would miss: a new stage, a new layer, and
-- every twentieth of a stage.
CREATE FUNCTION graspd_twentieth(progress json) RETURNS bigint LANGUAGE sql IMMUTABLE
    RETURN 20 * (progress ->> 'done')::bigint / GREATEST((progress ->> 'total')::bigint, 1);

CREATE FUNCTION graspd_note_progress() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    now_at json := NEW.progress::json;
    was_at json := OLD.progress::json;
BEGIN
    IF was_at IS NULL
        OR now_at ->> 'stage' IS DISTINCT FROM was_at ->> 'stage'
        OR now_at ->> 'layer' IS DISTINCT FROM was_at ->> 'layer'
        OR graspd_twentieth(now_at) IS DISTINCT FROM graspd_twentieth(was_at)
    THEN
        PERFORM graspd_note(NEW.id, 'job.progress', NEW.progress);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER events_of_progress AFTER UPDATE OF progress ON jobs
    FOR EACH ROW WHEN (NEW.progress IS NOT NULL AND NEW.progress IS DISTINCT FROM OLD.progress)
    EXECUTE FUNCTION graspd_note_progress();
