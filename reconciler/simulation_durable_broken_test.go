//go:build flashgate_broken_durable

package reconciler

const watermarkIsEnough = true
