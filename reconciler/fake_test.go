package reconciler

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"flashgate/ledger"
	"flashgate/sale"
)

// memory is a ledger for tests that look inside: one mutex, and a lock per shard.
type memory struct {
	ledger.Ledger // what no test here calls
	mu            sync.Mutex
	versions      []sale.Version
	shards        map[ledger.Shard]*memoryShard
	// away makes every call fail while it is set.
	away error
}

type memoryShard struct {
	lock    chan struct{}
	head    ledger.Head
	books   *sale.Books
	entries []ledger.Entry
	aside   []sale.Event
	buried  []ledger.DeadLetter
}

func newMemory() *memory { return &memory{shards: map[ledger.Shard]*memoryShard{}} }

func (m *memory) shard(id ledger.Shard) *memoryShard {
	s := m.shards[id]
	if s == nil {
		s = &memoryShard{lock: make(chan struct{}, 1), books: sale.NewBooks(id.Sale, id.Number)}
		m.shards[id] = s
	}
	return s
}

func (m *memory) PutVersion(_ context.Context, v sale.Version, _ int64) (sale.Version, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v.Version, v.Status = 1, sale.VersionPending
	for _, o := range m.versions {
		if o.Sale == v.Sale {
			v.Version = o.Version + 1
		}
	}
	m.versions = append(m.versions, v)
	return v, nil
}

func (m *memory) Versions(_ context.Context, id string) ([]sale.Version, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(m.versions), func(v sale.Version) bool { return v.Sale != id }), m.away
}

func (m *memory) PendingVersions(context.Context) ([]sale.Version, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(m.versions), func(v sale.Version) bool {
		return v.Status != sale.VersionPending
	}), m.away
}

func (m *memory) reject(_ context.Context, id string, version int64, refusal string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.versions {
		if v := &m.versions[i]; v.Sale == id && v.Version == version && v.Status == sale.VersionPending {
			v.Status, v.Refusal = sale.VersionRejected, refusal
		}
	}
	return m.away
}

func (t *memoryTx) Versions(ctx context.Context) ([]sale.Version, error) {
	return t.m.Versions(ctx, t.id.Sale)
}

func (t *memoryTx) RejectVersion(ctx context.Context, version int64, refusal string) error {
	return t.m.reject(ctx, t.id.Sale, version, refusal)
}

func (m *memory) Shards(context.Context) ([]ledger.Shard, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []ledger.Shard
	for id := range m.shards {
		ids = append(ids, id)
	}
	return ids, m.away
}

func (m *memory) Head(_ context.Context, id ledger.Shard) (ledger.Head, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shard(id).head, m.away
}

func (m *memory) Events(_ context.Context, id ledger.Shard, after int64, limit int) ([]ledger.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shard(id)
	from := min(int(after), len(s.entries))
	return slices.Clone(s.entries[from:min(from+limit, len(s.entries))]), m.away
}

func (m *memory) Marks(_ context.Context, id ledger.Shard, seqs []int64) (map[int64]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, marks := m.shard(id), map[int64]string{}
	for _, seq := range seqs {
		if seq <= int64(len(s.entries)) {
			marks[seq] = s.entries[seq-1].Mark
		}
	}
	return marks, m.away
}

func (m *memory) Projections(_ context.Context, id ledger.Shard, after string, limit int) (ledger.Projections, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.shard(id)
	p := ledger.Projections{Head: s.head, Stock: maps.Clone(s.books.Stock)}
	for _, key := range slices.Sorted(maps.Keys(s.books.Reservations)) {
		if key > after && len(p.Reservations) < limit {
			p.Reservations = append(p.Reservations, *s.books.Reservations[key])
		}
	}
	return p, m.away
}

func (m *memory) Taints(context.Context) (map[ledger.Shard]int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	taints := map[ledger.Shard]int{}
	for id, s := range m.shards {
		if len(s.buried) > 0 {
			taints[id] = len(s.buried)
		}
	}
	return taints, m.away
}

func (m *memory) Begin(ctx context.Context, id ledger.Shard) (ledger.Tx, error) {
	m.mu.Lock()
	s, away := m.shard(id), m.away
	m.mu.Unlock()
	if away != nil {
		return nil, away
	}
	select {
	case s.lock <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memoryTx{m: m, id: id, s: s, head: s.head}, nil
}

type memoryTx struct {
	m       *memory
	id      ledger.Shard
	s       *memoryShard
	head    ledger.Head
	entries []ledger.Entry
	aside   []sale.Event
	buried  []ledger.DeadLetter
	done    bool
}

func (t *memoryTx) Head() ledger.Head { return t.head }

func (t *memoryTx) Append(_ context.Context, events []sale.Event) error {
	hashes, next, err := t.head.Extend(t.id, events)
	if err != nil {
		return err
	}
	for i := range events {
		t.entries = append(t.entries, ledger.Entry{Event: events[i], Hash: hashes[i]})
	}
	t.head = next
	return nil
}

func (t *memoryTx) Alive(_ context.Context, at int64) error {
	t.head.AliveAtMs = max(t.head.AliveAtMs, at)
	return nil
}

func (t *memoryTx) SetAside(_ context.Context, events []sale.Event, _ string) error {
	for i := range events {
		known := func(e sale.Event) bool {
			return e.Epoch == events[i].Epoch && e.Seq == events[i].Seq && e.Mark == events[i].Mark
		}
		if !slices.ContainsFunc(t.s.aside, known) {
			t.aside = append(t.aside, events[i])
		}
	}
	return nil
}

func (t *memoryTx) Bury(_ context.Context, d ledger.DeadLetter) error {
	t.buried = append(t.buried, d)
	return nil
}

func (t *memoryTx) Taints(context.Context) (int, error) { return len(t.s.buried) + len(t.buried), nil }

func (t *memoryTx) Settle(context.Context, int64, ledger.LetterState, string, string) error {
	return ledger.ErrNotFound
}

func (t *memoryTx) Commit(context.Context) error {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	if t.done {
		return errors.New("transaction has ended")
	}
	if t.m.away != nil {
		return t.m.away
	}
	t.done = true
	defer func() { <-t.s.lock }()
	for i := range t.entries {
		e := &t.entries[i].Event
		if err := t.s.books.Apply(e); err != nil {
			panic(err) // A test's ledger that does not fold is a finding.
		}
		for j := range t.m.versions {
			if v := &t.m.versions[j]; v.Sale == e.Sale && v.Version == t.s.books.Version {
				v.Status = sale.VersionApplied
			}
		}
	}
	t.s.entries = append(t.s.entries, t.entries...)
	t.s.aside = append(t.s.aside, t.aside...)
	t.s.buried = append(t.s.buried, t.buried...)
	t.s.head = t.head
	return nil
}

func (t *memoryTx) Rollback() {
	if !t.done {
		t.done = true
		<-t.s.lock
	}
}

func (m *memory) Ping(context.Context) error { return nil }
func (m *memory) Close() error               { return nil }

// faultyLedger fails calls around Tx as a broken connection does: before they had their effect,
// or, of a commit, after it.
type faultyLedger struct {
	ledger.Ledger
	fault func(step string) bool
}

var errInjected = errors.New("injected fault")

func (f *faultyLedger) Begin(ctx context.Context, id ledger.Shard) (ledger.Tx, error) {
	if f.fault("begin") {
		return nil, errInjected
	}
	tx, err := f.Ledger.Begin(ctx, id)
	if err != nil {
		return nil, err
	}
	return &faultyTx{Tx: tx, fault: f.fault}, nil
}

type faultyTx struct {
	ledger.Tx
	fault func(step string) bool
}

func (f *faultyTx) Append(ctx context.Context, events []sale.Event) error {
	if f.fault("append before") {
		return errInjected
	}
	if err := f.Tx.Append(ctx, events); err != nil {
		return err
	}
	if f.fault("append after") {
		return errInjected
	}
	return nil
}

func (f *faultyTx) Commit(ctx context.Context) error {
	if f.fault("commit before") {
		return errInjected
	}
	if err := f.Tx.Commit(ctx); err != nil {
		return err
	}
	if f.fault("commit after") {
		return errInjected
	}
	return nil
}

// faultyShard fails trims, and looks and applies whose effect is there.
type faultyShard struct {
	shard
	fault func(step string) bool
}

func (f *faultyShard) Trim(
	ctx context.Context, epoch, watermark int64, mark string, tail int64, returned ...string,
) (sale.Outcome, error) {
	if f.fault("trim before") {
		return "", errInjected
	}
	o, err := f.shard.Trim(ctx, epoch, watermark, mark, tail, returned...)
	if f.fault("trim after") {
		return "", errInjected
	}
	return o, err
}

func fast() Options {
	return Options{
		Drain: true, IdleMs: 1, IdleMaxMs: 5, ShardsMs: 20, VersionsMs: 5, TakeoverMs: 50,
		BackoffMinMs: 1, BackoffMaxMs: 20, FrozenMs: 20, SweepIntervalMs: 10, AliveMs: 50,
		BeatMs: 20, LapseMs: 300, StandbyMs: 50,
	}
}

const patience = 60 * time.Second
