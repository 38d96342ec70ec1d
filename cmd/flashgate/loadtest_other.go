//go:build !unix

package main

import (
	"context"
	"errors"
)

// startShop cannot.
func startShop(context.Context, console) (*shop, error) {
	return nil, errors.New("--self needs Linux or macOS; start a Flashgate yourself and name it with --url")
}
