-- API keys. Of a key only its SHA-256 is kept: keys are 256 random bits, which nobody guesses from a hash.
CREATE TABLE keys (
    -- For people; not secret.
    id         text   NOT NULL PRIMARY KEY,
    tenant     text   NOT NULL,
    -- Scopes, separated by spaces.
    scopes     text   NOT NULL,
    hash       bytea  NOT NULL UNIQUE,
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint
);
