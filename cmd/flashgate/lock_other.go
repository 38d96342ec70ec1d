//go:build !unix

package main

import "os"

// lockFile only makes the file: this system has no lock that ends with the process and is in the
// standard library. Run one embedded stack per folder.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}
