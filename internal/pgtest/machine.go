//go:build unix

package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	leastMajor = 15
	prefix     = "flashgate-pgtest-"
)

var errMissing = errors.New("no PostgreSQL 15 or newer on this machine (initdb and postgres, in PATH or under " +
	"/usr/lib/postgresql); these tests need a real one.\n" +
	"Debian and Ubuntu: apt-get install postgresql; macOS: brew install postgresql@17")

// machine is what this process knows of PostgreSQL: its programs, the user who runs them, the
// folder of all its servers, and an initialised cluster to copy from, because initdb takes seconds.
type machine struct {
	bin      string
	as       *syscall.Credential // nil: ourselves
	dir      string
	lock     *os.File
	template string
}

var (
	here     machine
	hereErr  error
	hereOnce sync.Once
)

func theMachine() (*machine, error) {
	hereOnce.Do(func() { hereErr = here.prepare() })
	return &here, hereErr
}

func (m *machine) prepare() error {
	var err error
	if m.bin, err = programs(); err != nil {
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
	return m.run(filepath.Join(m.bin, "initdb"), "--pgdata", m.template, "--no-sync", "--auth=trust",
		"--encoding=UTF8", "--locale=C", "--username=postgres")
}

// run runs a program as the user of the servers.
func (m *machine) run(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = m.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.as}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// forget removes the folder of this process.
func (m *machine) forget() {
	if m.dir != "" {
		_ = os.RemoveAll(m.dir)
	}
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
func programs() (string, error) {
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
		if n := major(filepath.Join(dir, "postgres")); n > highest {
			best, highest = dir, n
		}
	}
	if best == "" {
		return "", errMissing
	}
	return best, nil
}

// major asks a server program for its major version; 0 when it has none.
func major(postgres string) int {
	out, err := exec.Command(postgres, "--version").Output() // postgres (PostgreSQL) 15.18 (Debian ...)
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
