package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"flashgate/drill/servers"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"flashgate": main})
}

// TestScripts runs testdata/script: every command of the README in its own words.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"freeport": freeport, "http": httpCall, "sigterm": sigterm, "code": exitCodeOf, "lines": lines,
			"bare": bare, "interrupt": interrupt,
		},
	})
}

// freeport sets a variable to a loopback address with a port that nobody uses now.
func freeport(ts *testscript.TestScript, _ bool, args []string) {
	port, err := servers.FreePort()
	ts.Check(err)
	ts.Setenv(args[0], net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

const httpPatience = 15 * time.Second

// httpCall is "http STATUS METHOD PATH [BODY] [REGEXP]": it calls $ADDR with the key $KEY until status
// and answer (headers, then body) are as said, for at most a while.
func httpCall(ts *testscript.TestScript, _ bool, args []string) {
	args = append(args, "", "")
	want, pattern := args[0], regexp.MustCompile(args[4])
	key := ts.Getenv("KEY")
	if key == "" {
		key = "dev"
	}
	last := "no answer"
	for until := time.Now().Add(httpPatience); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		req, err := http.NewRequest(args[1], "http://"+ts.Getenv("ADDR")+args[2], strings.NewReader(args[3]))
		ts.Check(err)
		req.Header.Set("Authorization", "Bearer "+key)
		if args[3] != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			last = err.Error()
			continue
		}
		var text strings.Builder
		_ = resp.Header.Write(&text)
		_, err = io.Copy(&text, resp.Body)
		_ = resp.Body.Close()
		last = fmt.Sprintf("%d %s", resp.StatusCode, text.String())
		if err == nil && strconv.Itoa(resp.StatusCode) == want && pattern.MatchString(text.String()) {
			return
		}
	}
	ts.Fatalf("%s %s: want %s %q, last got %s", args[1], args[2], want, args[4], last)
}

// sigterm sends SIGTERM to what runs in the background.
func sigterm(ts *testscript.TestScript, _ bool, _ []string) {
	for _, c := range ts.BackgroundCmds() {
		ts.Check(c.Process.Signal(syscall.SIGTERM))
	}
}

// interrupt is "interrupt NAME": it sends SIGINT to the background command of that name.
func interrupt(ts *testscript.TestScript, _ bool, args []string) {
	for _, c := range ts.BackgroundCmds() {
		if strings.Contains(strings.Join(c.Args, " "), args[0]+"test") {
			ts.Check(c.Process.Signal(syscall.SIGINT))
			return
		}
	}
	ts.Fatalf("no %s in the background", args[0])
}

// exitCodeOf is "code N program args...": it runs a program that must end with that code.
func exitCodeOf(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// bare leaves nothing in the PATH but flashgate: a machine without servers.
func bare(ts *testscript.TestScript, _ bool, _ []string) {
	path, err := exec.LookPath("flashgate")
	ts.Check(err)
	ts.Setenv("PATH", filepath.Dir(path))
}

// lines is "lines N FILE": stdout, stderr or a file has exactly so many lines.
func lines(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[1])
	if n := strings.Count(text, "\n"); strconv.Itoa(n) != args[0] || !strings.HasSuffix(text, "\n") {
		ts.Fatalf("%s has %d lines, want %s:\n%s", args[1], n, args[0], text)
	}
}
