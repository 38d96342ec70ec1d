-- A dead letter is of a fork, or poison that taints its shard while it is open.

-- +goose Up

ALTER TABLE dead_letters ADD COLUMN kind TEXT NOT NULL DEFAULT 'fork';
ALTER TABLE dead_letters ADD COLUMN mark TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN state TEXT NOT NULL DEFAULT 'open';
ALTER TABLE dead_letters ADD COLUMN settled_at_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN actor TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN resolution TEXT NOT NULL DEFAULT '';
CREATE INDEX dead_letters_taint ON dead_letters (sale, shard) WHERE kind = 'poison' AND state = 'open';

-- +goose Down

DROP INDEX dead_letters_taint;
ALTER TABLE dead_letters DROP COLUMN resolution;
ALTER TABLE dead_letters DROP COLUMN actor;
ALTER TABLE dead_letters DROP COLUMN settled_at_us;
ALTER TABLE dead_letters DROP COLUMN state;
ALTER TABLE dead_letters DROP COLUMN mark;
ALTER TABLE dead_letters DROP COLUMN kind;
