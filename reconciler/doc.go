// Package reconciler keeps the books: it brings the events of every shard from Redis into the
// ledger, gives back holds that are due, applies the versions of sales, and rebuilds a shard from
// the ledger when Redis lost or forked its data. Any number of reconcilers may run on the same
// shards, and any may die anywhere: the lock of a shard's watermark row is all that they share.
//
// The files, in the order of the flow:
//
//	options.go     what it may do and every limit, with defaults
//	reconciler.go  Run: finds the shards, owns every goroutine
//	divide.go      who of all reconcilers has which shard, and who steps in
//	worker.go      one shard: the loop, its pauses, its state and its log lines
//	verdict.go     what Redis shows against the ledger's head: nothing, drain, create, rebuild, freeze
//	drain.go       look, lock, append, commit, trim
//	batch.go       larger transactions for a backlog, and how many at once
//	bury.go        dead letters: out of the way, into a place of their own in the chain
//	settle.go      dead letters again: replayed or resolved by an operator
//	past.go        removes what is left of past epochs, until it is gone
//	operator.go    a rebuild that an operator asks for, or what it would do
//	adopt.go       the operator's way out of a gap: whose state goes on
//	redis_state.go all that Redis has of a shard
//	adoption.go    the difference between it and the books, as events
//	receipt.go     what a sale came to, and whether the ledger still has that past
//	apply.go       versions of a sale on their way into the shard
//	rebuild.go     close, drain the rest, fold, begin an epoch, write it, open
//	sweep.go       gives back what is due
//	verify.go      compares Redis with the fold of the ledger, slice by slice, while traffic runs
//	chain.go       the ledger's side of it: the fold, its hashes, versions and projections
//	report.go      what a verification found, and what to do about it
//	schedule.go    verifies every shard now and then
//	status.go      where every shard stands, asked from outside
//	metrics.go     what an operator sees
package reconciler
