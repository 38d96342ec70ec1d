-- A dead letter is of a fork, or poison that taints its shard while it is open.

-- +goose Up

ALTER TABLE dead_letters
    ADD COLUMN kind text NOT NULL DEFAULT 'fork' CHECK (kind IN ('fork', 'poison')),
    ADD COLUMN mark text NOT NULL DEFAULT '',
    ADD COLUMN state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'resolved')),
    ADD COLUMN settled_at timestamptz,
    ADD COLUMN actor text NOT NULL DEFAULT '',
    ADD COLUMN resolution text NOT NULL DEFAULT '';
CREATE INDEX dead_letters_taint ON dead_letters (sale, shard) WHERE kind = 'poison' AND state = 'open';

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flashgate_writer') THEN
        GRANT UPDATE ON dead_letters TO flashgate_writer;
    END IF;
END
$$;
-- +goose StatementEnd

-- +goose Down

DROP INDEX dead_letters_taint;
ALTER TABLE dead_letters
    DROP COLUMN kind, DROP COLUMN mark, DROP COLUMN state, DROP COLUMN settled_at, DROP COLUMN actor,
    DROP COLUMN resolution;
