//go:build unix

package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	leastMajor = 15
	prefix     = "flashgate-servers-"
)

var errNoPostgres = MissingError{
	"PostgreSQL 15 or newer (initdb and postgres, in PATH or under /usr/lib/postgresql)",
	"Debian and Ubuntu: apt-get install postgresql; macOS: brew install postgresql@17",
}

// Machine is what this process knows of PostgreSQL: its programs, the user who runs them, the
// folder of all its servers, and an initialised cluster to copy from, because initdb takes seconds.
type Machine struct {
	bin      string
	as       *syscall.Credential // nil: ourselves
	dir      string
	lock     *os.File
	template string
	count    atomic.Int64
}

// NewMachine finds PostgreSQL and makes a cluster to copy from. MissingError when there is none. It
// also removes the folders of processes that were killed before they could.
func NewMachine(ctx context.Context) (*Machine, error) {
	m := &Machine{}
	if err := m.prepare(ctx); err != nil {
		m.Remove()
		return nil, err
	}
	return m, nil
}

// Dir is the folder of everything that this machine's servers write. Its owner is who runs them.
func (m *Machine) Dir() string { return m.dir }

// Remove removes the folder. Every server must have ended.
func (m *Machine) Remove() {
	if m.dir != "" {
		_ = os.RemoveAll(m.dir)
	}
	if m.lock != nil {
		_ = m.lock.Close()
	}
}

func (m *Machine) prepare(ctx context.Context) error {
	var err error
	if m.bin, err = programs(ctx); err != nil {
		return err
	}
	if os.Getuid() == 0 {
		if m.as, err = servant(); err != nil {
			return err
		}
	}
	sweep()
	if m.dir, err = os.MkdirTemp("", prefix); err != nil {
		return err
	}
	if m.lock, err = os.Create(filepath.Join(m.dir, "lock")); err != nil {
		return err
	}
	if err = syscall.Flock(int(m.lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", m.lock.Name(), err)
	}
	if m.as != nil {
		if err = os.Chown(m.dir, int(m.as.Uid), int(m.as.Gid)); err != nil {
			return err
		}
	}
	m.template = filepath.Join(m.dir, "template")
	return m.run(ctx, filepath.Join(m.bin, "initdb"), "--pgdata", m.template, "--no-sync", "--auth=trust",
		"--encoding=UTF8", "--locale=C", "--username=postgres")
}

// run runs a program as the user of the servers.
func (m *Machine) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // initdb and cp
	cmd.Dir = m.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.as}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// sweep removes the folders of processes that were killed: those that nobody holds the lock of.
func sweep() {
	found, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, dir := range found {
		lock, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			continue // just being made, or not ours to read
		}
		info, err := lock.Stat()
		fresh := err != nil || time.Since(info.ModTime()) < time.Minute // its maker may not have locked it yet
		if !fresh && syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = lock.Close()
	}
}

// programs finds the folder of initdb and postgres, of the highest version there is.
func programs(ctx context.Context) (string, error) {
	var dirs []string
	if path, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
	} {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, found...)
	}
	best, highest := "", leastMajor-1
	for _, dir := range dirs {
		if n := major(ctx, filepath.Join(dir, "postgres")); n > highest {
			best, highest = dir, n
		}
	}
	if best == "" {
		return "", errNoPostgres
	}
	return best, nil
}

// major asks a server program for its major version; 0 when it has none.
func major(ctx context.Context, postgres string) int {
	out, err := exec.CommandContext(ctx, postgres, "--version").Output() // postgres (PostgreSQL) 15.18 (Debian ...)
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(out), "(PostgreSQL) ")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	n, _ := strconv.Atoi(rest[:max(end, 0)])
	return n
}

// servant is who runs the servers when we are root, which PostgreSQL refuses.
func servant() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody")
}
