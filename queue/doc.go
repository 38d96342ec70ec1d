// Package queue is the line: the waiting room before a sale. Its state lives in Redis, beside the
// shard's, and changes by scripts of package lua only; what a shopper is told comes from memory.
//
// ticket.go is what a shopper holds, for this line and for the waitlist; admission.go what lets them
// reserve.
package queue
