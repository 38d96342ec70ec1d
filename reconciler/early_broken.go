//go:build flashgate_broken_trim

package reconciler

const trimsEarly = true
