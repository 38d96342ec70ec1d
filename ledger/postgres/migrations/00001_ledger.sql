-- The books of Flashgate. Times that end in _ms, and ledger.at, are milliseconds since 1970 on the
-- clock of Redis; timestamps are those of whoever wrote the row.

-- +goose Up

-- One row per sale: what writers of its versions lock.
CREATE TABLE sales (
    sale text COLLATE "C" PRIMARY KEY
);

-- Every version of every sale. Pending until its event is in the ledger, or the shard refused it.
CREATE TABLE sale_versions (
    sale       text COLLATE "C" NOT NULL REFERENCES sales,
    version    bigint NOT NULL,
    lifecycle  text NOT NULL,
    config     jsonb NOT NULL,
    actor      text NOT NULL,
    reason     text NOT NULL,
    created_at timestamptz NOT NULL,
    status     text NOT NULL CHECK (status IN ('pending', 'applied', 'rejected')),
    refusal    text NOT NULL DEFAULT '',
    PRIMARY KEY (sale, version)
);
CREATE INDEX sale_versions_pending ON sale_versions (sale, version) WHERE status = 'pending';

-- What happened, for ever. lines is "sku/location=qty;..." and data JSON, both as text, because the
-- hash is over them: SHA-256 of the hash before and every column.
CREATE TABLE ledger (
    sale        text COLLATE "C" NOT NULL,
    shard       integer NOT NULL,
    epoch       bigint NOT NULL,
    seq         bigint NOT NULL,
    mark        text NOT NULL,
    prev        text NOT NULL,
    at          bigint NOT NULL,
    type        text NOT NULL,
    reservation text NOT NULL,
    customer    text NOT NULL,
    lines       text NOT NULL,
    actor       text NOT NULL,
    ref         text NOT NULL,
    data        text NOT NULL,
    hash        bytea NOT NULL,
    PRIMARY KEY (sale, shard, seq)
);

-- +goose StatementBegin
CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER ledger_rows BEFORE UPDATE OR DELETE ON ledger
    FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only();
CREATE TRIGGER ledger_table BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
-- Without ALWAYS, session_replication_role = replica would step around them.
ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_rows;
ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_table;

-- The end of each shard's chain. The lock of its row is the mutual exclusion between reconcilers.
-- sale_seq is the seq of the last sale_created or sale_changed, 0 before one.
CREATE TABLE watermarks (
    sale        text COLLATE "C" NOT NULL,
    shard       integer NOT NULL,
    epoch       bigint NOT NULL DEFAULT 0,
    seq         bigint NOT NULL DEFAULT 0,
    mark        text NOT NULL DEFAULT '',
    hash        bytea,
    sale_seq    bigint NOT NULL DEFAULT 0,
    alive_at_ms bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sale, shard)
) WITH (fillfactor = 20);

-- Projections: the fold of the ledger. They can be thrown away and folded again.
CREATE TABLE reservations (
    sale           text COLLATE "C" NOT NULL,
    reservation    text COLLATE "C" NOT NULL,
    shard          integer NOT NULL,
    state          text NOT NULL,
    customer       text NOT NULL,
    fingerprint    text NOT NULL,
    lines          text NOT NULL,
    held_at_ms     bigint NOT NULL,
    deadline_ms    bigint NOT NULL,
    resolved_at_ms bigint NOT NULL,
    extension      bigint NOT NULL,
    order_id       text NOT NULL,
    seq            bigint NOT NULL,
    mark           text NOT NULL,
    PRIMARY KEY (sale, reservation)
) WITH (fillfactor = 60);

CREATE TABLE stock_levels (
    sale     text COLLATE "C" NOT NULL,
    shard    integer NOT NULL,
    sku      text COLLATE "C" NOT NULL,
    location text COLLATE "C" NOT NULL,
    on_hand  bigint NOT NULL,
    safety   bigint NOT NULL,
    held     bigint NOT NULL,
    sold     bigint NOT NULL,
    PRIMARY KEY (sale, shard, sku, location),
    CHECK (safety >= 0 AND held >= 0 AND sold >= 0 AND on_hand >= safety + held + sold)
) WITH (fillfactor = 50);

-- Events that cannot become part of a chain, packed as the stream held them. bytea, because what
-- cannot be read may be anything.
CREATE TABLE dead_letters (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT now(),
    sale   text COLLATE "C" NOT NULL,
    shard  integer NOT NULL,
    epoch  bigint NOT NULL,
    seq    bigint NOT NULL,
    event  bytea NOT NULL,
    reason text NOT NULL
);

CREATE TABLE audit_log (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL,
    actor   text NOT NULL,
    action  text NOT NULL,
    subject text NOT NULL,
    before  text NOT NULL,
    after   text NOT NULL,
    reason  text NOT NULL
);

-- hash is SHA-256 of the key; the key itself is nowhere.
CREATE TABLE api_keys (
    id         text COLLATE "C" PRIMARY KEY,
    name       text NOT NULL,
    role       text NOT NULL,
    hash       bytea NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz
);

-- What a dashboard shows: one row per sale and place.
CREATE VIEW sale_summary AS
SELECT l.sale, l.shard, v.version, v.lifecycle, l.sku, l.location, l.on_hand, l.safety, l.held, l.sold,
    l.on_hand - l.safety - l.held - l.sold AS available,
    w.epoch, w.seq, to_timestamp(w.alive_at_ms / 1000.0) AS alive_at
FROM stock_levels l
JOIN watermarks w USING (sale, shard)
LEFT JOIN LATERAL (
    SELECT version, lifecycle FROM sale_versions WHERE sale = l.sale AND status = 'applied'
    ORDER BY version DESC LIMIT 1
) v ON true;

-- A group for the program's own login: GRANT flashgate_writer TO <login>. Its members cannot change
-- the ledger even without the triggers. Whoever may not create roles goes without: the program does
-- not ask for it.
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'flashgate_writer') THEN
        CREATE ROLE flashgate_writer NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL; -- made by another database just now
    WHEN insufficient_privilege THEN RAISE NOTICE 'role flashgate_writer not created: no right to create roles';
END
$$;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flashgate_writer') THEN
        GRANT SELECT, INSERT ON ledger TO flashgate_writer;
        GRANT SELECT, INSERT ON audit_log, dead_letters TO flashgate_writer;
        GRANT SELECT, INSERT, UPDATE ON sales, sale_versions, watermarks, api_keys TO flashgate_writer;
        GRANT SELECT, INSERT, UPDATE, DELETE ON reservations, stock_levels TO flashgate_writer;
        GRANT SELECT ON sale_summary, goose_db_version TO flashgate_writer;
    END IF;
END
$$;
-- +goose StatementEnd

-- +goose Down

DROP VIEW sale_summary;
DROP TABLE api_keys, audit_log, dead_letters, stock_levels, reservations, watermarks, ledger, sale_versions, sales;
DROP FUNCTION ledger_is_append_only();
