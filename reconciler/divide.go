package reconciler

import (
	"context"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"flashgate/ledger"
)

// The shards are divided among the reconcilers that beat, so that no work is done twice for nothing. That is
// thrift and no rule: the lock of the watermark row is the only exclusion, and whoever knows of nobody else
// works on everything.

// silentTimes is after how many lapses a reconciler that says nothing is taken out of the hash.
const silentTimes = 20

// membership is who beats, as this reconciler sees it, by its own clock alone.
type membership struct {
	id   string
	beat func(ctx context.Context, id string) (map[string]int64, error)
	out  func(ctx context.Context, ids ...string) error

	mu    sync.Mutex
	seen  map[string]heard
	last  time.Time               // the last beat that was answered
	alone bool                    // it was too long ago
	mine  map[ledger.Shard]string // who each shard belongs to
}

// heard is the count that a reconciler was last at, and since when.
type heard struct {
	count int64
	since time.Time
}

func newMembership(beat func(context.Context, string) (map[string]int64, error),
	out func(context.Context, ...string) error,
) *membership {
	return &membership{id: newMark(), beat: beat, out: out, seen: map[string]heard{}}
}

// beatOn beats until ctx ends, and then leaves.
func (r *Reconciler) beatOn(ctx context.Context) {
	r.poll(ctx, "beat", r.opts.BeatMs, func(c context.Context) error {
		c, cancel := context.WithTimeout(c, ms(r.opts.LapseMs))
		defer cancel()
		counts, err := r.members.beat(c, r.members.id)
		r.m.members.Set(float64(r.members.learn(counts, err, time.Now(), ms(r.opts.LapseMs), r.known())))
		if gone := r.members.silent(time.Now(), silentTimes*ms(r.opts.LapseMs)); err == nil && len(gone) > 0 {
			return r.members.out(c, gone...)
		}
		return err
	})
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), ms(r.opts.LapseMs))
	defer cancel()
	// One that does not leave is silent from now on.
	_ = r.members.out(c, r.members.id)
}

// learn takes the counts of a beat and divides the shards anew. It returns how many beat.
func (m *membership) learn(counts map[string]int64, err error, now time.Time, lapse time.Duration,
	shards []ledger.Shard,
) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.alone = now.Sub(m.last) > lapse
		return 1
	}
	m.last, m.alone = now, false
	members := []string{m.id}
	for id, count := range counts {
		if h, known := m.seen[id]; !known || h.count != count {
			m.seen[id] = heard{count, now}
		}
		if id != m.id && now.Sub(m.seen[id].since) <= lapse {
			members = append(members, id)
		}
	}
	for id := range m.seen {
		if _, there := counts[id]; !there {
			delete(m.seen, id)
		}
	}
	m.mine = divide(shards, members)
	return len(members)
}

// silent are those whose count has stood still for so long.
func (m *membership) silent(now time.Time, long time.Duration) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var gone []string
	for id, h := range m.seen {
		if id != m.id && now.Sub(h.since) > long {
			gone = append(gone, id)
		}
	}
	return gone
}

// owns tells whether a shard is this reconciler's; one that was not divided yet is everybody's.
func (m *membership) owns(id ledger.Shard) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	owner := m.mine[id]
	return m.alone || owner == "" || owner == m.id
}

// divide gives each shard to the member with the highest weight for it that has not its share yet
// (rendezvous hashing with bounded loads, Mirrokni, Thorup and Zadimoghaddam, 2016): all who know the same
// shards and members divide alike, nobody has more than one above the mean, and little moves when somebody
// comes or goes.
func divide(shards []ledger.Shard, members []string) map[ledger.Shard]string {
	members = slices.Clone(members)
	slices.Sort(members)
	share := (len(shards) + len(members) - 1) / len(members)
	has := make(map[string]int, len(members))
	owners := make(map[ledger.Shard]string, len(shards))
	for _, id := range shards {
		best, most := "", uint64(0)
		for _, m := range members {
			if w := weight(id, m); has[m] < share && (best == "" || w > most) {
				best, most = m, w
			}
		}
		owners[id] = best
		has[best]++
	}
	return owners
}

// weight is how much a member wants a shard: random, and the same for everybody who asks.
func weight(id ledger.Shard, member string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strings.Join([]string{id.Sale, member}, "\x00")))
	_, _ = h.Write([]byte{byte(id.Number), byte(id.Number >> 8)})
	// The low bits of a FNV hash of texts that begin alike are like each other: mixed as by SplitMix64.
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// standby is what a worker remembers of a shard that is another's.
type standby struct {
	// place is how far Redis and the ledger were at the last look, since when they are there with work left.
	place place
	since time.Time
	// until: the owner left work lying, so that this one does it for a while.
	until time.Time
}

// place is what moves when the owner of a shard works.
type place struct {
	epoch, watermark int64
	building         string
}

// stands looks whether the owner of a shard that is another's does its work. It returns how long to leave
// the shard to it, 0 to work on it here: when the shard is ours, or has had work for StandbyMs that nobody
// touched.
func (w *worker) stands(ctx context.Context) (time.Duration, error) {
	now := time.Now()
	if w.r.members.owns(w.id) || now.Before(w.standby.until) {
		return 0, nil
	}
	pending := w.versions.Swap(false) // Whoever finds versions says it again while there are some.
	l, err := w.sh.Look(ctx, w.standby.place.epoch, w.standby.place.watermark, 1)
	if err != nil {
		return 0, step("look", err)
	}
	w.m.observeStandby(&l)
	at, was := place{l.Epoch, l.Watermark, l.Building}, w.standby.place
	if !l.Missing && (at.epoch < was.epoch || at.epoch == was.epoch && at.watermark < was.watermark) {
		w.standIn(at, pending) // Redis is at another past than the ledger was told of.
		return 0, nil
	}
	work := pending || l.Missing || !l.Open || l.Building != "" || l.Seq > l.Watermark ||
		l.NowMs-l.LastMs > w.r.opts.MaxClockStepMs
	switch {
	case !work:
		w.standby = standby{place: at}
		w.become(stateStandby, "", "")
	case at != was || w.standby.since.IsZero():
		w.standby = standby{place: at, since: now}
	case now.Sub(w.standby.since) >= ms(w.r.opts.StandbyMs):
		w.standIn(at, pending)
		return 0, nil
	}
	return ms(max(w.r.opts.StandbyMs/4, 1)), nil
}

// standIn makes the shard this worker's for a while.
func (w *worker) standIn(at place, pending bool) {
	w.standby = standby{place: at, until: time.Now().Add(ms(w.r.opts.LapseMs))}
	if pending {
		w.versions.Store(true)
	}
	w.known = false
	w.r.m.standIns.Inc()
}
