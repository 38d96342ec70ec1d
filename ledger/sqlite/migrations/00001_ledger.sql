-- The books of Flashgate in one file; the tables are those of ledger/postgres. Times that end in _ms,
-- and ledger.at, are milliseconds since 1970 on the clock of Redis; those that end in _us are
-- microseconds on the clock of whoever wrote the row.

-- +goose Up

CREATE TABLE sale_versions (
    sale          TEXT NOT NULL,
    version       INTEGER NOT NULL,
    lifecycle     TEXT NOT NULL,
    config        TEXT NOT NULL,
    actor         TEXT NOT NULL,
    reason        TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    status        TEXT NOT NULL CHECK (status IN ('pending', 'applied', 'rejected')),
    refusal       TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (sale, version)
) STRICT, WITHOUT ROWID;

-- What happened, for ever. lines is "sku/location=qty;..." and data JSON, both as text, because the
-- hash is over them: SHA-256 of the hash before and every column.
CREATE TABLE ledger (
    sale        TEXT NOT NULL,
    shard       INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    mark        TEXT NOT NULL,
    prev        TEXT NOT NULL,
    at          INTEGER NOT NULL,
    type        TEXT NOT NULL,
    reservation TEXT NOT NULL,
    customer    TEXT NOT NULL,
    lines       TEXT NOT NULL,
    actor       TEXT NOT NULL,
    ref         TEXT NOT NULL,
    data        TEXT NOT NULL,
    hash        BLOB NOT NULL,
    PRIMARY KEY (sale, shard, seq)
) STRICT, WITHOUT ROWID;

-- +goose StatementBegin
CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: UPDATE refused');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: DELETE refused');
END;
-- +goose StatementEnd
-- INSERT OR REPLACE would delete without asking the trigger above.
-- +goose StatementBegin
CREATE TRIGGER ledger_no_replace BEFORE INSERT ON ledger
    WHEN EXISTS (SELECT 1 FROM ledger WHERE sale = new.sale AND shard = new.shard AND seq = new.seq)
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: this event is there already');
END;
-- +goose StatementEnd

-- The end of each shard's chain. sale_seq is the seq of the last sale_created or sale_changed.
CREATE TABLE watermarks (
    sale        TEXT NOT NULL,
    shard       INTEGER NOT NULL,
    epoch       INTEGER NOT NULL DEFAULT 0,
    seq         INTEGER NOT NULL DEFAULT 0,
    mark        TEXT NOT NULL DEFAULT '',
    hash        BLOB,
    sale_seq    INTEGER NOT NULL DEFAULT 0,
    alive_at_ms INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sale, shard)
) STRICT, WITHOUT ROWID;

-- Projections: the fold of the ledger. They can be thrown away and folded again.
CREATE TABLE reservations (
    sale           TEXT NOT NULL,
    reservation    TEXT NOT NULL,
    shard          INTEGER NOT NULL,
    state          TEXT NOT NULL,
    customer       TEXT NOT NULL,
    fingerprint    TEXT NOT NULL,
    lines          TEXT NOT NULL,
    held_at_ms     INTEGER NOT NULL,
    deadline_ms    INTEGER NOT NULL,
    resolved_at_ms INTEGER NOT NULL,
    extension      INTEGER NOT NULL,
    order_id       TEXT NOT NULL,
    seq            INTEGER NOT NULL,
    mark           TEXT NOT NULL,
    PRIMARY KEY (sale, reservation)
) STRICT, WITHOUT ROWID;

CREATE TABLE stock_levels (
    sale     TEXT NOT NULL,
    shard    INTEGER NOT NULL,
    sku      TEXT NOT NULL,
    location TEXT NOT NULL,
    on_hand  INTEGER NOT NULL,
    safety   INTEGER NOT NULL,
    held     INTEGER NOT NULL,
    sold     INTEGER NOT NULL,
    PRIMARY KEY (sale, shard, sku, location),
    CHECK (safety >= 0 AND held >= 0 AND sold >= 0 AND on_hand >= safety + held + sold)
) STRICT, WITHOUT ROWID;

-- Events that cannot become part of a chain, packed as the stream held them.
CREATE TABLE dead_letters (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us  INTEGER NOT NULL,
    sale   TEXT NOT NULL,
    shard  INTEGER NOT NULL,
    epoch  INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    event  BLOB NOT NULL,
    reason TEXT NOT NULL
) STRICT;

CREATE TABLE audit_log (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us   INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    before  TEXT NOT NULL,
    after   TEXT NOT NULL,
    reason  TEXT NOT NULL
) STRICT;

-- hash is SHA-256 of the key; the key itself is nowhere. revoked_at_us is NULL while it is valid.
CREATE TABLE api_keys (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    role          TEXT NOT NULL,
    hash          BLOB NOT NULL,
    created_at_us INTEGER NOT NULL,
    revoked_at_us INTEGER
) STRICT, WITHOUT ROWID;

CREATE VIEW sale_summary AS
SELECT l.sale, l.shard, v.version, v.lifecycle, l.sku, l.location, l.on_hand, l.safety, l.held, l.sold,
    l.on_hand - l.safety - l.held - l.sold AS available, w.epoch, w.seq, w.alive_at_ms
FROM stock_levels l
JOIN watermarks w ON w.sale = l.sale AND w.shard = l.shard
LEFT JOIN sale_versions v ON v.sale = l.sale AND v.version = (
    SELECT max(version) FROM sale_versions WHERE sale = l.sale AND status = 'applied');

-- +goose Down

DROP VIEW sale_summary;
DROP TABLE api_keys;
DROP TABLE audit_log;
DROP TABLE dead_letters;
DROP TABLE stock_levels;
DROP TABLE reservations;
DROP TABLE watermarks;
DROP TABLE ledger;
DROP TABLE sale_versions;
