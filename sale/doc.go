// Package sale holds the words of Flashgate: what a sale, a reservation and an event are, which
// changes are allowed, and what the books must always add up to. It imports the standard library
// only; every other package points at it.
//
// Read in this order: config.go (what marketing writes) and validate.go (its rules), line.go and
// reservation.go (what a customer holds), outcome.go (every answer a script may give), event.go
// (what is written down), books.go (the fold of events into stock, the one definition of correct),
// diff.go (what a changed sale changes).
package sale
