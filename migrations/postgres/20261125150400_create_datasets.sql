-- Texts that users have uploaded. The text itself is a file or an object.
CREATE TABLE datasets (
    id         text   COLLATE "C" NOT NULL PRIMARY KEY,
    tenant     text   NOT NULL,
    name       text   NOT NULL,
    format     text   NOT NULL CHECK (format IN ('txt', 'jsonl')),
    bytes      bigint NOT NULL,
    sha256     text   NOT NULL,
    created_at bigint NOT NULL
);

CREATE INDEX datasets_by_tenant ON datasets (tenant, id);
