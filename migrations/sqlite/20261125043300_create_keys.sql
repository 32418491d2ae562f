-- API keys. Of a key only its SHA-256 is kept: keys are 256 random bits, which nobody guesses from a hash.
CREATE TABLE keys (
    -- For people; not secret.
    id         TEXT    NOT NULL PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    -- Scopes, separated by spaces.
    scopes     TEXT    NOT NULL,
    hash       BLOB    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;
