-- Scopes, end and last use of API keys, and the keys that gateways sign with; the tables are those of
-- ledger/postgres.

-- +goose Up

-- sales and locations are all that a key may work with, a JSON list of names; NULL is every one.
ALTER TABLE api_keys ADD COLUMN sales TEXT CHECK (json_array_length(sales) > 0);
ALTER TABLE api_keys ADD COLUMN locations TEXT CHECK (json_array_length(locations) > 0);
ALTER TABLE api_keys ADD COLUMN expires_at_us INTEGER;
ALTER TABLE api_keys ADD COLUMN last_used_at_us INTEGER;

-- The newest signs, all verify. Unlike the hash of an API key, secret is the key itself.
CREATE TABLE signing_keys (
    id            TEXT PRIMARY KEY,
    secret        BLOB NOT NULL,
    created_at_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down

DROP TABLE signing_keys;
ALTER TABLE api_keys DROP COLUMN sales;
ALTER TABLE api_keys DROP COLUMN locations;
ALTER TABLE api_keys DROP COLUMN expires_at_us;
ALTER TABLE api_keys DROP COLUMN last_used_at_us;
