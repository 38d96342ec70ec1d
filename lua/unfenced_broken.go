//go:build flashgate_broken_rebuild

package lua

const buildUnfenced = true
