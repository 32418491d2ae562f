-- Processes that run jobs, by what they say every few seconds.
CREATE TABLE workers (
    name    TEXT    NOT NULL PRIMARY KEY,
    -- Bytes that a job may use on each of its slots.
    memory  INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT;
