package lua

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed *.lua shared/*.lua
var files embed.FS

// Errors of a call. Any other error means that the reply was lost: the outcome is unknown, and
// the same call sent again finds out.
var (
	// ErrRefused: the server would not run the script now (loading, read-only, out of memory, no
	// replicas, cluster down). Nothing changed.
	ErrRefused = errors.New("redis refused the call")
	// ErrScript: the script failed. It checks before it writes, so nothing changed.
	ErrScript = errors.New("script failed")
)

var refusals = []string{
	"OOM", "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF", "BUSY",
	"TRYAGAIN", "NOAUTH", "NOPERM", "UNKILLABLE", "ERR max number of clients",
}

type script struct {
	name  string
	text  string
	redis *redis.Script
	keys  []int // of era.keys, those that it takes
}

func load(name string) *script {
	text, keys := ownKeys(source(name))
	return &script{name: name, text: text, redis: redis.NewScript(text), keys: keys}
}

var keyIndex = regexp.MustCompile(`\bKEYS\[(\d+)\]`)

// ownKeys numbers anew the KEYS that are left in a script, and returns what they were, from 0.
func ownKeys(text string) (numbered string, keys []int) {
	numbered = keyIndex.ReplaceAllStringFunc(text, func(key string) string {
		n, _ := strconv.Atoi(keyIndex.FindStringSubmatch(key)[1]) // digits
		if !slices.Contains(keys, n-1) {
			keys = append(keys, n-1)
		}
		return fmt.Sprintf("KEYS[%d]", slices.Index(keys, n-1)+1)
	})
	return numbered, keys
}

var joins = regexp.MustCompile(`(?m)^-- Joins: (.+)$`)

// source joins what the header names in front of the script.
func source(name string) string {
	body := read(name + ".lua")
	var b strings.Builder
	for part := range strings.SplitSeq(joins.FindStringSubmatch(body)[1], ", ") {
		b.WriteString(read("shared/" + part + ".lua"))
	}
	if buildUnfenced {
		body = strings.ReplaceAll(body, "redis.call('HGET', SALE, 'building') ~= token", "false and token")
	}
	b.WriteString(body)
	return slim(b.String())
}

// block is a part of a script at its top level. One with a name is the function, key or constant of that name.
type block struct {
	text, name string
	uses       map[string]int // words, with how often they are in it
}

// slim leaves out comments, and of shared parts the functions, keys and constants that a script does not use. Every
// call makes all functions of the top level anew, and there is room for 200 names: so a function that is called
// at one place only, under a condition, is moved there, with what only it uses.
func slim(text string) string {
	blocks := blocksOf(text)
	uses := map[string]int{}
	for _, b := range blocks {
		for w, n := range b.uses {
			uses[w] += n
		}
	}
	unused := func(b block) bool { return b.name != "" && uses[b.name] == b.uses[b.name] }
	for i := slices.IndexFunc(blocks, unused); i >= 0; i = slices.IndexFunc(blocks, unused) {
		for w, n := range blocks[i].uses {
			uses[w] -= n
		}
		blocks = slices.Delete(blocks, i, i+1)
	}
	// From the end, as what uses a function is after it.
	for at := len(blocks) - 1; at >= 0; at-- {
		b := &blocks[at]
		if !strings.HasPrefix(b.text, "local function") || uses[b.name] != b.uses[b.name]+1 {
			continue
		}
		for i := at + 1; i < len(blocks); i++ {
			if line, ok := conditionalCall(&blocks[i], b.name); ok {
				head, rest, _ := strings.Cut(b.text, "\n")
				blocks[i].insert(line, head+"\n"+absorb(blocks[:at], b, uses)+rest, b.uses)
				b.text, b.uses = "", nil
				break
			}
		}
	}
	var all strings.Builder
	for _, b := range blocks {
		all.WriteString(b.text)
	}
	return all.String()
}

// absorb takes what only into uses out of the blocks before it, and returns it.
func absorb(blocks []block, into *block, uses map[string]int) (text string) {
	for i := len(blocks) - 1; i >= 0; i-- {
		b := &blocks[i]
		if b.name == "" || b.text == "" || uses[b.name] != b.uses[b.name]+into.uses[b.name] {
			continue
		}
		for w, n := range b.uses {
			into.uses[w] += n
		}
		text = b.text + text
		b.text, b.uses = "", nil
	}
	return text
}

// conditionalCall finds the line of the script's own flow that calls a function, if it is under a condition and
// not in a loop: but what make_... makes is kept, so that loops make it once.
func conditionalCall(b *block, name string) (line int, ok bool) {
	if b.name != "" || b.uses[name] == 0 {
		return 0, false
	}
	lines := strings.Split(b.text, "\n")
	call := regexp.MustCompile(`^ +(?:local )?(?:[\w, .]+ = )?` + name + `\(`)
	line = slices.IndexFunc(lines, call.MatchString)
	if line < 0 {
		return 0, false
	}
	depth := indent(lines[line])
	for i := line - 1; i >= 0 && depth > 0; i-- {
		if lines[i] == "" || indent(lines[i]) >= depth {
			continue
		}
		depth = indent(lines[i])
		switch word, _, _ := strings.Cut(strings.TrimLeft(lines[i], " "), " "); word {
		case "if", "elseif", "else":
			ok = true
		case "do":
		case "for":
			if !strings.HasPrefix(name, "make_") {
				return 0, false
			}
		default:
			return 0, false
		}
	}
	return line, ok
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// insert puts text before a line.
func (b *block) insert(line int, text string, uses map[string]int) {
	lines := strings.Split(b.text, "\n")
	b.text = strings.Join(slices.Insert(lines, line, strings.TrimSuffix(text, "\n")), "\n")
	for w, n := range uses {
		b.uses[w] += n
	}
}

var (
	functionHead = regexp.MustCompile(`^local function (\w+)\(`)
	constantLine = regexp.MustCompile(`^local (\w+) = (?:KEYS\[\d+\]|(?:tonumber\()?ARGV\[\d\]\)?|'[^']*'|\d+|\{\})\n$`)
	// comment is one that begins a line, with its line, or one that follows and has no quote.
	comment = regexp.MustCompile(`(?m)^ *--.*\n| +-- [^'"\n]*$`)
	// seam is where a text goes on in the next line of a script.
	seam = regexp.MustCompile(`'\n +\.\. '`)
)

func blocksOf(text string) (blocks []block) {
	var b strings.Builder
	flush := func(name string) {
		blocks = append(blocks, block{b.String(), name, words(b.String())})
		b.Reset()
	}
	name := ""
	for line := range strings.Lines(seam.ReplaceAllString(comment.ReplaceAllString(text, ""), "")) {
		function, constant := functionHead.FindStringSubmatch(line), constantLine.FindStringSubmatch(line)
		if function != nil || constant != nil {
			flush("")
		}
		b.WriteString(line)
		switch {
		case function != nil:
			name = function[1]
		case constant != nil:
			flush(constant[1])
		case name != "" && line == "end\n":
			flush(name)
			name = ""
		}
	}
	flush(name)
	return blocks
}

func words(text string) map[string]int {
	all := map[string]int{}
	for w := range strings.FieldsFuncSeq(text, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		all[w]++
	}
	return all
}

func read(path string) string {
	b, err := files.ReadFile(path)
	if err != nil {
		panic(err) // The files are embedded: only a misspelt name gets here, at start.
	}
	return string(b)
}

// commandArgs come before the keys in a call of a script: how, which, and how many keys there are.
const commandArgs = 3

// run calls the script by its hash, and with its text where the server does not know it yet. The args are
// those of the whole command, with room for its first commandArgs.
func (s *script) run(ctx context.Context, rdb redis.UniversalClient, args []any) ([]string, error) {
	args[0], args[1], args[2] = "evalsha", s.redis.Hash(), len(s.keys)
	fields, err := s.process(ctx, rdb, args)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		args[0], args[1] = "eval", s.text
		fields, err = s.process(ctx, rdb, args)
	}
	if err != nil {
		return nil, named(s.name, err)
	}
	if len(fields) < headFields {
		return nil, fmt.Errorf("%s: %w: unexpected reply", s.name, ErrScript)
	}
	return fields, nil
}

// named says what failed, and whether Redis said so.
func named(what string, err error) error {
	var answer redis.Error
	if !errors.As(err, &answer) {
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, p := range refusals {
		if strings.HasPrefix(answer.Error(), p) || strings.Contains(answer.Error(), " "+p+" ") {
			return fmt.Errorf("%s: %w: %w", what, ErrRefused, err)
		}
	}
	return fmt.Errorf("%s: %w: %w", what, ErrScript, err)
}

// process makes the call. All replies are flat lists of text: read as such they cost half of what a reply of
// any form does.
func (*script) process(ctx context.Context, rdb redis.UniversalClient, args []any) ([]string, error) {
	cmd := redis.NewStringSliceCmd(ctx, args...)
	cmd.SetFirstKeyPos(commandArgs)
	_ = rdb.Process(ctx, cmd) // as cmd says
	return cmd.Result()
}

// scripts lists every script, for loading and for the test of their headers.
var scripts = []*script{
	reserveScript, confirmScript, releaseScript, extendScript, cancelScript, findScript,
	availabilityScript, adjustScript, applyScript, expireScript, lookScript, closeScript, buildScript,
	flipScript, trimScript, cutScript, limitScript, onceScript,
	roomJoinScript, roomLeaveScript, roomBeatScript, roomAdmitScript, roomLookScript,
}
