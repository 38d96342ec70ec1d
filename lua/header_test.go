package lua

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

var (
	keyNames = []string{
		"SALE", "STOCK", "CUSTOMERS", "DEADLINES", "EVENTS", "RECORDS", "FINISHED", "ADJUSTMENT", "LIMITS",
		"ONCE", "ROOM", "WAITLIST", "LINE", "OFFERS",
	}
	word      = regexp.MustCompile(`\b[A-Z][A-Z_]+\b`)
	quoted    = regexp.MustCompile(`'([A-Z][A-Z_]+)'`)
	argument  = regexp.MustCompile(`ARGV\[(\d+)\]`)
	numbered  = regexp.MustCompile(`^\s*(?:ARGV:)?\s*(\d+) `)
	luaPrefix = regexp.MustCompile(`(?m)^-- ?`)
)

// TestHeaderContract compares the header of every script with its body: the KEYS it names, the
// ARGV it numbers, the outcomes it lists, the shared parts it joins and the Go binding it has.
func TestHeaderContract(t *testing.T) {
	onDisk, err := filepath.Glob("*.lua")
	require.NoError(t, err)
	bound := map[string]bool{}
	for _, s := range scripts {
		bound[s.name+".lua"] = true
	}
	require.Len(t, bound, len(scripts), "a script is listed twice")
	require.ElementsMatch(t, onDisk, slices.Collect(maps.Keys(bound)), "every script has a binding in scripts")

	listed := map[sale.Outcome]bool{}
	for _, s := range scripts {
		t.Run(s.name, func(t *testing.T) {
			head, body := split(read(s.name + ".lua"))
			require.True(t, strings.HasPrefix(head, s.name+".lua: "), "begins with its name and purpose")
			keys, argv, replies := section(head, "KEYS:", "ARGV:"), section(head, "ARGV:", "Replies"), section(head, "Replies", "")

			joined := body
			for part := range strings.SplitSeq(strings.TrimSpace(section(head, "Joins:", "\n")), ", ") {
				_, shared := split(read("shared/" + part + ".lua"))
				joined += shared
			}
			require.Subset(t, only(keyNames, word.FindAllString(joined, -1)), only(keyNames, word.FindAllString(keys, -1)),
				"KEYS names a key that nothing uses")
			require.Subset(t, word.FindAllString(keys, -1), only(keyNames, word.FindAllString(body, -1)),
				"the body uses a key that KEYS does not name")

			numbers := map[string]bool{}
			for line := range strings.Lines(argv) {
				if m := numbered.FindStringSubmatch(line); m != nil {
					numbers[m[1]] = true
				}
			}
			require.NotEmpty(t, numbers, "ARGV numbers its values from 5")
			for i := range len(numbers) {
				require.Contains(t, numbers, strconv.Itoa(5+i), "ARGV has a hole")
			}
			for _, m := range argument.FindAllStringSubmatch(body, -1) {
				require.Contains(t, numbers, m[1], "ARGV does not explain a value that the body reads")
			}

			var inHead, inBody, inJoined []string
			for _, o := range sale.Outcomes {
				name := string(o)
				if slices.Contains(word.FindAllString(replies, -1), name) {
					inHead = append(inHead, name)
					listed[o] = true
				}
				for _, m := range quoted.FindAllStringSubmatch(body, -1) {
					if m[1] == name && !slices.Contains(inBody, name) {
						inBody = append(inBody, name)
					}
				}
				for _, m := range quoted.FindAllStringSubmatch(joined, -1) {
					if m[1] == name && !slices.Contains(inJoined, name) {
						inJoined = append(inJoined, name)
					}
				}
			}
			require.Subset(t, inJoined, inHead, "Replies lists an outcome that nothing gives")
			require.Subset(t, inHead, inBody, "the body gives an outcome that Replies does not list")
		})
	}
	for _, o := range sale.Outcomes {
		require.True(t, listed[o], "no script replies %s", o)
	}
}

// TestScriptsKeepToWhatEverywhereWorks: the embedded engine has none of these, and a script must
// not depend on them.
func TestScriptsKeepToWhatEverywhereWorks(t *testing.T) {
	for _, s := range scripts {
		for _, no := range []string{"cjson", "cmsgpack", "struct.", "bit.", "#!", "redis.pcall", "os.", "math.random"} {
			_, body := split(source(s.name))
			require.NotContains(t, body, no, s.name)
		}
	}
}

// TestLuacheck lints every script as it is sent, with its shared parts in front. Joining makes lines longer, so how long
// they are is looked at in the files.
func TestLuacheck(t *testing.T) {
	for _, pattern := range []string{"*.lua", "shared/*.lua"} {
		paths, err := fs.Glob(files, pattern)
		require.NoError(t, err)
		for _, path := range paths {
			for line := range strings.Lines(read(path)) {
				require.LessOrEqual(t, len(line), 111, "%s: %s", path, line)
			}
		}
	}
	dir := t.TempDir()
	for _, s := range scripts {
		require.NoError(t, os.WriteFile(filepath.Join(dir, s.name+".lua"), []byte(source(s.name)), 0o600))
	}
	out, err := luacheck(t, dir)
	require.NoError(t, err, out)
}

// A function that is moved to where a name means something else than where it was written is an error.
func TestLuacheckSeesWhatAMovedFunctionMeant(t *testing.T) {
	const text = "local a = ARGV[1]\nlocal function rare()\n  return a\nend\n" +
		"if a then\n  local b = ARGV[2]\n  local c = rare()\n  return b .. c\nend\n"
	for name, fine := range map[string]bool{"b": true, "a": false} {
		dir := t.TempDir()
		moved := slim(strings.ReplaceAll(text, "local b =", "local "+name+" ="))
		require.Less(t, strings.Index(moved, "if a"), strings.Index(moved, "local function"), moved)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "moved.lua"), []byte(strings.ReplaceAll(moved, "b ..", name+" ..")), 0o600))
		out, err := luacheck(t, dir)
		require.Equal(t, fine, err == nil, out)
	}
}

func luacheck(t *testing.T, dir string) (said string, err error) {
	tool, err := exec.LookPath("luacheck")
	require.NoError(t, err, "luacheck is missing; on Debian: apt-get install lua-check")
	config, err := filepath.Abs("../.luacheckrc")
	require.NoError(t, err)
	out, err := exec.Command(tool, "--config", config, "--no-color", "--no-max-line-length", dir).CombinedOutput()
	return string(out), err
}

// split parts a file into its leading comment, without the dashes, and the rest without comments.
func split(file string) (head, body string) {
	lines := strings.SplitAfter(file, "\n")
	n := 0
	for n < len(lines) && strings.HasPrefix(lines[n], "--") {
		n++
	}
	for _, l := range lines[n:] {
		if code, _, _ := strings.Cut(l, "--"); code != "" {
			body += strings.TrimRight(code, "\n") + "\n"
		}
	}
	return luaPrefix.ReplaceAllString(strings.Join(lines[:n], ""), ""), body
}

func section(head, from, to string) string {
	_, rest, ok := strings.Cut(head, from)
	if !ok {
		return ""
	}
	if to != "" {
		rest, _, _ = strings.Cut(rest, to)
	}
	return rest
}

func only(of, in []string) []string {
	var out []string
	for _, w := range of {
		if slices.Contains(in, w) {
			out = append(out, w)
		}
	}
	return out
}
