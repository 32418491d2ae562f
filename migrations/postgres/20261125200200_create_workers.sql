-- Processes that run jobs, by what they say every few seconds.
CREATE TABLE workers (
    name    text   NOT NULL PRIMARY KEY,
    -- Bytes that a job may use on each of its slots.
    memory  bigint NOT NULL,
    seen_at bigint NOT NULL
);
