-- Which job a key of a client made, so that a request that is sent again makes no second one.
CREATE TABLE idempotency_keys (
    tenant      text   NOT NULL,
    key         text   NOT NULL,
    -- SHA-256 of what was asked, in hexadecimal.
    fingerprint text   NOT NULL,
    job         text   COLLATE "C" NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    created_at  bigint NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_by_job ON idempotency_keys (job);
