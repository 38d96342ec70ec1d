// Package gateway is the door: it owns HTTP. It turns requests into calls of the scripts and
// outcomes into answers, and decides nothing about stock.
//
// options.go has every limit. keyring.go says who asks and catalog.go which sales there are.
// A reserve goes through coalesce.go into a lane (lane.go), where all that wait for one shard are
// sent in one call, and where holds past their deadline are given back on demand. Confirm, release
// and the rest go through resolve.go and never wait behind reserves. breaker.go stops both from
// hammering a Redis that is away. durable.go makes a 200 wait until the ledger has the very event.
// metrics.go counts.
// server.go listens, routes.go names the routes, problem.go is the one table from outcome to
// status, the handlers_ files have one verb each, stream.go tells of stock as it changes and
// openapi.go publishes the description.
package gateway
