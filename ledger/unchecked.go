//go:build !flashgate_broken_marks

package ledger

// marksUnchecked is true only in a program that the drill must find broken: built with the tag
// flashgate_broken_marks it takes a fork for what continues the ledger.
const marksUnchecked = false
