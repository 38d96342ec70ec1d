package lua

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// A reply that is not that of XRANGE is an error, whatever it is cut to.
func TestEntriesThatCannotBeRead(t *testing.T) {
	good := "*2\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\ne\r\n$3\r\na\r\n\r\n*2\r\n$4\r\n1-12\r\n*0\r\n"
	events := newExpansion(1, 0, 2)
	n, err := parseEntries([]byte(good), events)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, []RawEvent{{1, 1, "a\r\n"}, {1, 12, ""}}, events.list)
	for i := range good {
		_, err := parseEntries([]byte(good[:i]), newExpansion(1, 0, 2))
		require.Error(t, err, "%q", good[:i])
	}
	for _, raw := range []string{
		good + "x", "$-1\r\n", "*-1\r\n", "-ERR no\r\n", "+OK\r\n", "*1\r\n*1\r\n$3\r\n1-1\r\n", "*99999999999\r\n",
		"*1\r\n*2\r\n$1\r\n1\r\n*0\r\n",
	} {
		_, err := parseEntries([]byte(raw), newExpansion(1, 0, 2))
		require.Error(t, err, "%q", raw)
	}
}

// Events that one call held in a row are one entry, and are read as if each had its own.
func TestRowsAreExpanded(t *testing.T) {
	row := "3\nm.\nbefore\n50\n90\n" +
		"id-1\nid-2\nid-3\nann\nbob\ncy\nf1\nf2\nf3\nA/x=1\ngate\nA/x=2;B/y=1\n\nA/x=1\ngate"
	whole := []RawEvent{
		{2, 7, "m.7\nbefore\n50\nheld\nid-1\nann\nA/x=1\ngate\n\n{\"fp\":\"f1\",\"deadline\":90}"},
		{2, 8, "m.8\nm.7\n50\nheld\nid-2\nbob\nA/x=2;B/y=1\n\n\n{\"fp\":\"f2\",\"deadline\":90}"},
		{2, 9, "m.9\nm.8\n50\nheld\nid-3\ncy\nA/x=1\ngate\n\n{\"fp\":\"f3\",\"deadline\":90}"},
	}
	expand := func(after int64, limit int, text string) []RawEvent {
		x := newExpansion(2, after, limit)
		require.NoError(t, x.add("2-9", "r", text))
		require.NoError(t, x.add("2-10", "e", "one"))
		return x.list
	}
	all := append(slices.Clone(whole), RawEvent{2, 10, "one"})
	for after := range int64(4) {
		for limit := range 6 {
			require.Equal(t, all[after:min(after+int64(limit), 4)], expand(6+after, limit, row), "%d after %d", limit, after)
		}
	}
	for _, e := range whole {
		_, err := e.Parse("drop", 0)
		require.NoError(t, err)
	}

	// What cannot be read is there, event by event if that is known, so that nobody waits for it.
	for _, broken := range []string{row + "\n", row[:len(row)-5], "3\n\n", "3"} {
		require.Equal(t, []RawEvent{{2, 7, ""}, {2, 8, ""}, {2, 9, ""}, {2, 10, "one"}}, expand(6, 9, broken), "%q", broken)
	}
	for _, broken := range []string{"", "x", "0\n", "-3\n", "10\n", "99999999999999999999\n", "\n" + row} {
		require.Equal(t, []RawEvent{{2, 9, ""}, {2, 10, "one"}}, expand(6, 9, broken), "%q", broken)
	}
	require.Error(t, newExpansion(2, 0, 1).add("nine", "r", row))
}
