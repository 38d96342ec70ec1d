// Package luatest holds what proves the scripts: model.go is the oracle, a plain Go model of
// every verb that knows nothing of Redis; env.go is a sale on some Redis whose clock a test can
// set; suite.go and its neighbours are the one suite, run on miniredis, on a real Redis and on a
// one-node cluster.
package luatest
