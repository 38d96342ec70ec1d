package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is set by the linker in a release build.
var release string

// version is the release, else what the go command noted of the module.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

type versionCmd struct{}

// Help shows an example.
func (versionCmd) Help() string { return "Example:\n  flashgate version" }

// Run prints the version.
func (versionCmd) Run(c console) error {
	_, err := fmt.Fprintf(c.out, "flashgate %s (%s, %s/%s)\n",
		version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
