//go:build unix

package pgtest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticksPerSecond is the unit of /proc/<pid>/stat: USER_HZ, 100 on every Linux.
const ticksPerSecond = 100

// CPU is the CPU time that the server and the sessions it has now have used, in seconds; 0 where there is no
// /proc. It comes in steps of 10 ms a process.
func (s *Server) CPU() float64 {
	s.t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		s.t.Fatalf("pgtest: %v", err)
	}
	ticks := 0.0
	for _, path := range stats {
		b, err := os.ReadFile(filepath.Clean(path))
		if err != nil {
			continue // it ended meanwhile
		}
		// pid (name) state parent ... utime stime are fields 1 to 4, 14 and 15; the name may hold spaces.
		pid, rest, _ := strings.Cut(string(b), " ")
		f := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:])
		if own := strconv.Itoa(s.PID()); pid != own && f[1] != own {
			continue
		}
		for _, text := range f[11:13] {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				s.t.Fatalf("pgtest: %s: %v", path, err)
			}
			ticks += n
		}
	}
	return ticks / ticksPerSecond
}
