package reconciler

import (
	"time"

	"flashgate/lua"
)

// Options say what a reconciler does, and bound it. Zero values take the defaults.
type Options struct {
	// Drain: drain, apply versions of sales, rebuild.
	Drain bool
	// Sweep: give back holds that are due, and note that shards are alive.
	Sweep bool

	// BatchMax bounds the events of one look at Redis, about a millisecond of it for each 1,000; default
	// 1,000. A backlog goes in transactions of up to LooksMax looks, begun within BatchMs; defaults 16
	// and 200.
	BatchMax, LooksMax int
	BatchMs            int64
	// DrainsMax bounds the shards that are worked on at once in this process: each holds a connection
	// to the ledger; default 8.
	DrainsMax int
	// BusyMs is the least pause of a shard that has just had events; default 2. It grows to IdleMs, default
	// 20, while there are none. After QuietMs without any it is IdleMaxMs, so that many sleeping sales
	// cost little; defaults 5,000 and 100.
	BusyMs, IdleMs, QuietMs, IdleMaxMs int64
	// BeatMs is how often this reconciler tells the others that it is there; default 250. Whoever has not
	// done so for LapseMs has no shards any more; default 1,500.
	BeatMs, LapseMs int64
	// StandbyMs: work that the owner of a shard leaves untouched for so long is done by others; default
	// 1,000.
	StandbyMs int64
	// TailEvents stay in the stream after the ledger has them, for a ledger that loses its own
	// tail; default 1,000.
	TailEvents int64
	// ShardsMs: how often the ledger is asked for new shards; default 250, or 1,000 without Drain.
	ShardsMs int64
	// VersionsMs: how often the ledger is asked for pending versions; default 100.
	VersionsMs int64
	// TaintsMs: how often open dead letters are counted; default 1,000.
	TaintsMs int64
	// AliveMs: how often an idle shard's last sign of life goes to the ledger; default 5,000.
	AliveMs int64
	// MaxClockStepMs: a shard last seen alive longer ago is rebuilt, so that its deadlines move.
	// It must be that of lua.Options; default 30,000.
	MaxClockStepMs int64
	// RecoveryGraceMs is added to the deadlines of a rebuilt shard, and is how long it may take to
	// open; default 30,000.
	RecoveryGraceMs int64
	// TakeoverMs: a rebuild by somebody else that makes no progress for so long, or
	// up to twice as long, is taken over; default 1,000.
	TakeoverMs int64
	// SliceRecords bounds the rows of one slice of a rebuild; default 500.
	SliceRecords int
	// FoldPage bounds the events read from the ledger at once; default 5,000.
	FoldPage int
	// RecordMs: how long the record of a finished reservation is kept; default 24 h. It must be
	// that of lua.Options.
	RecordMs int64
	// StepTimeoutMs bounds one transaction with its calls to Redis; default 30,000.
	StepTimeoutMs int64
	// BackoffMinMs and BackoffMaxMs bound the pause after a failure; defaults 50 and 2,000.
	BackoffMinMs, BackoffMaxMs int64
	// FrozenMs: how often a frozen shard is looked at again; default 1,000.
	FrozenMs int64
	// ShutdownMs bounds what is finished after Run's context ended; default 10,000.
	ShutdownMs int64
	// DropMs bounds one try to remove what is left of past epochs, and the pause between two; default
	// 60,000.
	DropMs int64

	// AdoptTimeoutMs bounds the transaction of an adoption; default 600,000.
	AdoptTimeoutMs int64

	// VerifyEveryMs is how often each shard is verified by one of all reconcilers; 0 is never, and the
	// default.
	VerifyEveryMs int64
	// VerifySlice bounds the rows of one cut; default 500, most lua.MaxCut.
	VerifySlice int
	// VerifyWaitMs bounds the wait of a verification for the ledger; default 10,000. VerifyPollMs is
	// how often it looks; default 5.
	VerifyWaitMs, VerifyPollMs int64
	// VerifyTimeoutMs bounds one verification in the background; default 600,000.
	VerifyTimeoutMs int64
	// DifferencesMax bounds the differences that a report names; default 1,000. DifferencesLogged
	// bounds those that one verification in the background logs; default 20.
	DifferencesMax, DifferencesLogged int

	// SweepIntervalMs is the pause between two sweeps of a shard; default 250. While somebody waits in a line
	// of it the next sweep is at the next deadline, but not within SweepSoonMs, default 10.
	SweepIntervalMs, SweepSoonMs int64
	// SweepBatchMax bounds the holds of one call; default and most 256.
	SweepBatchMax int
	// SweepRoundMs bounds the calls of one sweep, so that confirmations have their turn; default 50.
	SweepRoundMs int64
}

func (o Options) withDefaults() Options {
	setDefault(&o.BatchMax, 1000)
	setDefault(&o.LooksMax, 16)
	setDefault(&o.BatchMs, 200)
	setDefault(&o.DrainsMax, 8)
	setDefault(&o.BusyMs, 2)
	setDefault(&o.IdleMs, 20)
	setDefault(&o.QuietMs, 5000)
	setDefault(&o.IdleMaxMs, 100)
	o.IdleMaxMs = max(o.IdleMaxMs, o.IdleMs)
	o.BusyMs = min(o.BusyMs, o.IdleMs)
	setDefault(&o.BeatMs, 250)
	setDefault(&o.LapseMs, 1500)
	setDefault(&o.StandbyMs, 1000)
	setDefault(&o.TailEvents, 1000)
	if o.Drain {
		setDefault(&o.ShardsMs, 250)
	}
	setDefault(&o.ShardsMs, 1000)
	setDefault(&o.VersionsMs, 100)
	setDefault(&o.TaintsMs, 1000)
	setDefault(&o.AliveMs, 5000)
	setDefault(&o.MaxClockStepMs, 30_000)
	setDefault(&o.RecoveryGraceMs, 30_000)
	setDefault(&o.TakeoverMs, 1000)
	setDefault(&o.SliceRecords, 500)
	setDefault(&o.FoldPage, 5000)
	setDefault(&o.RecordMs, 24*60*60*1000)
	setDefault(&o.StepTimeoutMs, 30_000)
	setDefault(&o.BackoffMinMs, 50)
	setDefault(&o.BackoffMaxMs, 2000)
	setDefault(&o.FrozenMs, 1000)
	setDefault(&o.ShutdownMs, 10_000)
	setDefault(&o.DropMs, 60_000)
	setDefault(&o.AdoptTimeoutMs, 600_000)
	setDefault(&o.VerifySlice, 500)
	o.VerifySlice = min(o.VerifySlice, lua.MaxCut)
	setDefault(&o.VerifyWaitMs, 10_000)
	setDefault(&o.VerifyPollMs, 5)
	setDefault(&o.VerifyTimeoutMs, 600_000)
	setDefault(&o.DifferencesMax, 1000)
	setDefault(&o.DifferencesLogged, 20)
	setDefault(&o.SweepIntervalMs, 250)
	setDefault(&o.SweepSoonMs, 10)
	setDefault(&o.SweepBatchMax, 256)
	setDefault(&o.SweepRoundMs, 50)
	return o
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
