// Package servers runs real servers for a while: redis-server and PostgreSQL from the machine's own
// programs, on free loopback ports, with their data in a temporary folder. It kills, pauses and
// restarts them. No server outlives this process, and no PostgreSQL runs as root.
//
// process.go runs any program in a group of its own; redis.go and postgres.go know how theirs is
// started, asked whether it is ready, and ended; machine.go finds PostgreSQL and prepares a cluster
// to copy from. The drill uses it, and so do redistest and pgtest.
package servers
