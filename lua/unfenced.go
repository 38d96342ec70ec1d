//go:build !flashgate_broken_rebuild

package lua

// buildUnfenced is true only in a program that the drill must find broken: built with the tag
// flashgate_broken_rebuild the slices of a rebuild and its flip do not look whose rebuild it is.
const buildUnfenced = false
