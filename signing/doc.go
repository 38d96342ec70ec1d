// Package signing makes and checks the small texts that one gateway hands to a client and another
// gets back: queue tickets, admissions, challenge clearances. All gateways share the keys, so none
// asks a store whether a text is genuine.
//
// key.go is a key, ring.go signs with the newest one and checks with all, fields.go packs a few
// values into a payload. What a payload means, for whom and until when, is its owner's matter.
package signing
