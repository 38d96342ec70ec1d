package gateway

import "errors"

// Errors of the engine, told apart with errors.Is.
var (
	// errOverloaded: a queue is full, or a request waited too long in it. Nothing was sent.
	errOverloaded = errors.New("overloaded")
	// errUnavailable: Redis or the ledger cannot be asked now, or the reply was lost; it wraps the
	// cause. What the call did is unknown; the same call sent again finds out.
	errUnavailable = errors.New("unavailable")
	// errUnauthenticated: no such key, or a revoked one.
	errUnauthenticated = errors.New("unauthenticated")
	// errClosed: the gateway is shutting down.
	errClosed = errors.New("gateway is shutting down")
)
