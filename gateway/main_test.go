package gateway

import (
	"testing"

	"go.uber.org/goleak"
)

// Every goroutine has an owner that ends it. What the libraries keep for as long as the process
// lives is named here.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// redistest keeps one server for all tests: these wait for its end and read what it prints.
		goleak.IgnoreAnyFunction("flashgate/drill/servers.Launch.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).Start.func2"),
		// fasthttp's clock and worker pool.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
	)
}
