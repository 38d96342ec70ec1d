//go:build flashgate_broken_durable

package gateway

const marksUnread = true
