-- An event of a fork is kept once, however often a rebuild that was killed begins again.

-- +goose Up

CREATE UNIQUE INDEX dead_letters_fork ON dead_letters (sale, shard, epoch, seq, mark)
    WHERE kind = 'fork' AND mark <> '';

-- +goose Down

DROP INDEX dead_letters_fork;
