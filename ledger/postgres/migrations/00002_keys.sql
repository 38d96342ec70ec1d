-- Scopes, end and last use of API keys, and the keys that gateways sign with.

-- +goose Up

-- sales and locations are all that a key may work with; NULL is every one.
ALTER TABLE api_keys
    ADD COLUMN sales text[] CHECK (cardinality(sales) > 0),
    ADD COLUMN locations text[] CHECK (cardinality(locations) > 0),
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN last_used_at timestamptz;

-- The newest signs, all verify. Unlike the hash of an API key, secret is the key itself.
CREATE TABLE signing_keys (
    id         text COLLATE "C" PRIMARY KEY,
    secret     bytea NOT NULL,
    created_at timestamptz NOT NULL
);

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flashgate_writer') THEN
        GRANT SELECT, INSERT ON signing_keys TO flashgate_writer;
    END IF;
END
$$;
-- +goose StatementEnd

-- +goose Down

DROP TABLE signing_keys;
ALTER TABLE api_keys DROP COLUMN sales, DROP COLUMN locations, DROP COLUMN expires_at, DROP COLUMN last_used_at;
