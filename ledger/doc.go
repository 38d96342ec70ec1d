// Package ledger is the durable, append-only record of everything a shard did, seen through one
// interface. ledger/postgres keeps it in PostgreSQL for production, ledger/sqlite in one file for
// the embedded default; ledger/ledgertest is the one suite that both must pass. SQL lives in
// those two packages only.
package ledger
