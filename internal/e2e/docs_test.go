package e2e

import (
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/pgtest"
)

// block is a fenced block of shell commands in a page. What to do with it is said in a comment
// before it:
//
//	<!-- test: run -->         runs to its end, exit code 0
//	<!-- test: background -->  runs until the end of its section; the next block waits for it
//	<!-- test: ci -->          is what .ci/run runs, and too long for here
type block struct {
	page, section, kind, text string
}

var (
	fence    = regexp.MustCompile("(?s)(?:<!-- test: (\\w+) -->\n+)?```(\\w*)\n(.*?)```")
	heading  = regexp.MustCompile(`(?m)^## .*$`)
	shellish = map[string]bool{"sh": true, "bash": true, "shell": true, "console": true}
)

func blocks(t *testing.T) []block {
	var found []block
	var pages []string
	for _, root := range []string{"../../README.md", "../../CHANGELOG.md", "../../docs"} {
		require.NoError(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(path, ".md") {
				pages = append(pages, path)
			}
			return err
		}))
	}
	for _, page := range pages {
		raw, err := os.ReadFile(page)
		require.NoError(t, err)
		text := string(raw)
		for _, m := range fence.FindAllStringSubmatchIndex(text, -1) {
			if !shellish[text[m[4]:m[5]]] {
				continue
			}
			b := block{page: filepath.Base(page), section: "top", text: text[m[6]:m[7]]}
			if m[2] >= 0 {
				b.kind = text[m[2]:m[3]]
			}
			for _, h := range heading.FindAllStringIndex(text, -1) {
				if h[0] < m[0] {
					b.section = strings.TrimPrefix(text[h[0]:h[1]], "## ")
				}
			}
			found = append(found, b)
		}
	}
	return found
}

// TestEveryCommandInTheDocs runs every shell block of README and docs, section by section: in an
// empty folder with the repository's configs, on free ports instead of the usual ones, with the
// built program in the place of go run, and with a PostgreSQL that the usual variables name.
func TestEveryCommandInTheDocs(t *testing.T) {
	ci, err := os.ReadFile("../../.ci/run")
	require.NoError(t, err)
	var sections [][]block
	for _, b := range blocks(t) {
		require.Contains(t, []string{"run", "background", "ci"}, b.kind, "%s, %s: say what the test does with\n%s", b.page, b.section, b.text)
		if b.kind == "ci" {
			command, _, _ := strings.Cut(b.text, "#")
			require.Contains(t, string(ci), "step "+strings.TrimSpace(command))
			continue
		}
		if n := len(sections); n > 0 && sections[n-1][0].page == b.page && sections[n-1][0].section == b.section {
			sections[n-1] = append(sections[n-1], b)
			continue
		}
		sections = append(sections, []block{b})
	}
	require.NotEmpty(t, sections)
	for _, s := range sections {
		t.Run(s[0].page+" "+s[0].section, func(t *testing.T) { runSection(t, s) })
	}
}

// runSection runs the blocks of a section in order.
func runSection(t *testing.T, section []block) {
	shell := newShell(t)
	for _, b := range section {
		if b.kind == "background" {
			shell.background(t, b.text)
		} else {
			shell.run(t, b.text)
		}
	}
}

// shell is the folder and the names of one reader who follows the page.
type shell struct {
	dir      string
	env      []string
	http     string
	redis    string
	replacer *strings.Replacer
}

func newShell(t *testing.T) *shell {
	dir := t.TempDir()
	configs, err := filepath.Abs("../../configs")
	require.NoError(t, err)
	require.NoError(t, os.Symlink(configs, filepath.Join(dir, "configs")))
	pg, err := url.Parse(pgtest.NewServer(t).DSN("postgres"))
	require.NoError(t, err)
	s := &shell{dir: dir, http: freeAddr(t), redis: freeAddr(t)}
	_, port, err := net.SplitHostPort(s.redis)
	require.NoError(t, err)
	s.env = append(os.Environ(), "PGHOST="+pg.Hostname(), "PGPORT="+pg.Port(), "PGUSER="+pg.User.Username(), "FLASHGATE_LISTEN="+s.http)
	s.replacer = strings.NewReplacer(
		"go run ./cmd/flashgate demo", binary+" demo --listen "+s.http, "go run ./cmd/flashgate", binary, "go build -o bin/flashgate ./cmd/flashgate", "mkdir -p bin && cp "+binary+" bin/flashgate",
		"127.0.0.1:8080", s.http, "127.0.0.1:6379", s.redis, "--port 6379", "--port "+port,
	)
	return s
}

func (s *shell) command(text string) *exec.Cmd {
	// The exports of a block are there for those that follow, as in the reader's terminal.
	script := "set -euo pipefail\ntouch .env; . ./.env\n" + s.replacer.Replace(text) + "\nexport -p > .env\n"
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (s *shell) run(t *testing.T, text string) {
	t.Helper()
	cmd := s.command(text)
	timer := time.AfterFunc(time.Minute, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s\n%s", text, out)
	require.NotContains(t, string(out), `"status":4`, "%s\n%s", text, out)
	require.NotContains(t, string(out), `"status":5`, "%s\n%s", text, out)
}

// background starts a block and waits until it listens where the page says. Interrupted at the
// end, it must end by itself.
func (s *shell) background(t *testing.T, text string) {
	t.Helper()
	said := &logFile{}
	cmd := s.command(text)
	cmd.Stdout, cmd.Stderr = said, said
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			t.Errorf("does not end on an interrupt: %s\n%s", text, said)
		}
	})
	addr := s.http
	if strings.Contains(text, "redis-server") {
		addr = s.redis
	}
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = conn.Close()
			break
		}
		require.True(t, time.Now().Before(end), "does not listen at %s: %s\n%s", addr, text, said)
	}
	if strings.Contains(text, "flashgate serve") || strings.Contains(text, "flashgate demo") {
		s.run(t, fmt.Sprintf("curl -sSf --retry 20 --retry-all-errors --retry-delay 1 -o ready http://%s/readyz", s.http))
	}
}
