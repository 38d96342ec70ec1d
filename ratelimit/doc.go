// Package ratelimit is what stands in front of the shared limits of a sale. The shared limits are
// counted by the scripts in Redis, exactly and for all gateways; this package makes no call.
//
// In the order of an attempt: address.go finds out which address a request comes from, and what
// text it is counted by. shield.go decides here and now about attempts that the shared limit is sure
// to refuse, so that whoever hammers costs Redis nothing; spending.go is what it knows of one
// customer, address or device, and why that is never more than the shared limit knows; table.go keeps
// a bounded number of those. headers.go tells callers where they stand, from what the scripts
// answered. rules.go holds the rules of one group of routes, compiled once for all of them.
//
// The limits are GCRA (ITU-T I.371): every value of a dimension has a theoretical arrival time, which
// an attempt moves on by an interval and which may be a burst of intervals ahead of now.
package ratelimit
