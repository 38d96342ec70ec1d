//go:build !flashgate_broken_durable

package reconciler

// watermarkIsEnough is true only in a simulation that must find its gateways broken.
const watermarkIsEnough = false
