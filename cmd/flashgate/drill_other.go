//go:build !unix

package main

import "errors"

type drillCmd struct{}

// Run cannot.
func (drillCmd) Run() error {
	return undoneError{errors.New("the drill needs Linux or macOS: it kills and stops servers by signals")}
}
