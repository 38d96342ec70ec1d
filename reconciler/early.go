//go:build !flashgate_broken_trim

package reconciler

// trimsEarly is true only in a program that the drill must find broken: built with the tag
// flashgate_broken_trim it drops events from the stream before the ledger has them.
const trimsEarly = false
