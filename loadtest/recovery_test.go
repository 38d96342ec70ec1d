package loadtest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// crowdOf is a recording of wants, ten a second from 0 on, each served so long after as wait says of its moment; and
// asked for again meanwhile, once a second.
func crowdOf(seconds int, wait func(at time.Duration) time.Duration) *Recording {
	r := &Recording{Arrivals: time.Duration(seconds) * time.Second}
	for n := range seconds * 1000 {
		due := time.Duration(n) * time.Millisecond
		served := due + wait(due)
		for sent := due; ; sent += time.Second {
			a := Answer{Op: int64(n), Verb: Reserve, Due: sent, Sent: sent, Took: time.Millisecond, Status: 503}
			if sent+time.Second > served {
				a.Took, a.Status = served-sent, 201
			}
			r.Answers = append(r.Answers, a)
			if a.Status == 201 {
				break
			}
		}
	}
	return r
}

const (
	froze  = 2 * time.Second
	thawed = 4 * time.Second
)

func TestRecoveryAfterAFreeze(t *testing.T) {
	const ms = time.Millisecond
	whoCame := func(before, after func(since time.Duration) time.Duration) func(time.Duration) time.Duration {
		return func(at time.Duration) time.Duration {
			switch {
			case at < froze:
				return ms
			case at < thawed:
				return thawed - at + before(at-froze)
			default:
				return after(at - thawed)
			}
		}
	}
	at := func(d time.Duration) func(time.Duration) time.Duration {
		return func(time.Duration) time.Duration { return d }
	}
	for name, c := range map[string]struct {
		wait func(time.Duration) time.Duration
		want Back
	}{
		"at once":  {whoCame(at(ms), at(ms)), Back{0, ms}},
		"in order": {whoCame(at(900*ms), func(since time.Duration) time.Duration { return max(ms, 900*ms-since) }), Back{700 * ms, 900 * ms}},
		"who comes first, the others later": {
			whoCame(func(since time.Duration) time.Duration { return 3 * time.Second }, at(100*ms)), Back{0, 3 * time.Second},
		},
		"never": {whoCame(at(ms), at(300*ms)), Back{-1, ms}},
		"one in a hundred late is nobody": {whoCame(at(ms), func(since time.Duration) time.Duration {
			if since%(100*ms) == 0 {
				return time.Second
			}
			return ms
		}), Back{0, ms}},
		"two in a hundred late": {whoCame(at(ms), func(since time.Duration) time.Duration {
			if since < 2*time.Second && since%(50*ms) == 0 {
				return time.Second
			}
			return ms
		}), Back{1500 * ms, ms}},
	} {
		t.Run(name, func(t *testing.T) {
			r := crowdOf(8, c.wait)
			require.Equal(t, c.want, backAfter(wants(r), froze, thawed, r.Arrivals))
		})
	}

	// What was told to come again and never did was not served; nor is 202, but in a line.
	r := crowdOf(8, at(ms))
	for i := range r.Answers {
		if a := &r.Answers[i]; a.Due >= froze && a.Due < thawed {
			a.Status = 202
		}
	}
	require.Equal(t, Back{0, -1}, backAfter(wants(r), froze, thawed, r.Arrivals))
	for i := range r.Answers {
		r.Answers[i].Ticket = "t"
	}
	require.Equal(t, Back{0, 0}, backAfter(wants(r), froze, thawed, r.Arrivals))
}
