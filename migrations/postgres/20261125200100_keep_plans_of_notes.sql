-- A function in SQL is planned anew in every transaction that calls it, one in PL/pgSQL once in a connection.
CREATE OR REPLACE FUNCTION graspd_note(job_id text, kind text, details text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (job, seq, at, type, data)
    SELECT job_id, 1 + COALESCE(MAX(seq), 0), graspd_now(), kind, details FROM events WHERE job = job_id;
END $$;
