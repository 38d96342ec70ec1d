// Package drill proves the promises: it runs the built program as an operator does, two gateways and
// two reconcilers as processes on a real Redis with a replica and a real PostgreSQL, lets shoppers
// buy who remember every answer, breaks things at seeded moments, heals them, and audits.
//
// plan.go draws from the seed what breaks when. world.go starts and removes everything, node.go one
// process of the program. strikes.go breaks and heals, moments.go does so at one certain moment. round.go
// is one round: sales, crowd, strikes, rest, audit. audit.go holds what was answered against the ledger,
// linear.go decides whether the history of the contended SKU has an order. result.go adds up, text.go and
// report.go show it.
//
// A drill that cannot fail proves nothing: built with one of the tags flashgate_broken_marks, _durable,
// _trim and _rebuild the program breaks one rule, and mutants_test.go requires that the drill finds it.
//
// All randomness comes from the seed: what shoppers want and when what breaks. How the calls
// interleave is the machine's and differs from run to run.
package drill
