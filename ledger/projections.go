package ledger

import "flashgate/sale"

// Projections are a part of a shard's projections, all as they were at Head.
type Projections struct {
	Head Head
	// Stock are the levels of all places.
	Stock map[sale.Place]sale.Level
	// Reservations are ordered by id.
	Reservations []sale.Reservation
}
