-- Texts that users have uploaded. The text itself is a file.
CREATE TABLE datasets (
    id         TEXT    NOT NULL PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    format     TEXT    NOT NULL CHECK (format IN ('txt', 'jsonl')),
    bytes      INTEGER NOT NULL,
    sha256     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX datasets_by_tenant ON datasets (tenant, id);
