package lua

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A reply that is not that of XRANGE is an error, whatever it is cut to.
func TestEntriesThatCannotBeRead(t *testing.T) {
	good := "*2\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\ne\r\n$3\r\na\r\n\r\n*2\r\n$4\r\n1-12\r\n*0\r\n"
	events, err := parseEntries([]byte(good), 2)
	require.NoError(t, err)
	require.Equal(t, []RawEvent{{1, 1, "a\r\n"}, {1, 12, ""}}, events)
	for i := range good {
		_, err := parseEntries([]byte(good[:i]), 2)
		require.Error(t, err, "%q", good[:i])
	}
	for _, raw := range []string{
		good + "x", "$-1\r\n", "*-1\r\n", "-ERR no\r\n", "+OK\r\n", "*1\r\n*1\r\n$3\r\n1-1\r\n", "*99999999999\r\n",
		"*1\r\n*2\r\n$1\r\n1\r\n*0\r\n",
	} {
		_, err := parseEntries([]byte(raw), 2)
		require.Error(t, err, "%q", raw)
	}
}
