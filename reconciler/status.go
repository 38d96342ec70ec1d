package reconciler

import (
	"context"
	"encoding/json"
	"fmt"

	"flashgate/ledger"
)

// The states of a shard that Status reports; none of them needs a reconciler in this process.
const (
	StatusOpen       = "open"       // the ledger has everything
	StatusDraining   = "draining"   // events are on their way
	StatusWaiting    = "waiting"    // the sale has no shard yet
	StatusRecovering = "recovering" // it has to be rebuilt, or is
	StatusTainted    = "tainted"    // it has to be rebuilt, and waits for its dead letters to be settled
	StatusFrozen     = "frozen"     // an operator has to decide
)

// ShardStatus is where a shard stands, seen from outside.
type ShardStatus struct {
	Sale  string `json:"sale"`
	Shard int    `json:"shard"`
	State string `json:"state"`
	// Reason is why it is not open; Detail says more to an operator.
	Reason string `json:"reason,omitempty"`
	Detail string `json:"detail,omitempty"`
	// Epoch and Seq are the ledger's watermark, RedisEpoch and RedisSeq where Redis is; 0 without a shard.
	Epoch      int64 `json:"epoch"`
	Seq        int64 `json:"seq"`
	RedisEpoch int64 `json:"redis_epoch"`
	RedisSeq   int64 `json:"redis_seq"`
	// LagEvents are the events of Redis that the ledger does not have, LagSeconds the age of the oldest.
	LagEvents  int64   `json:"lag_events"`
	LagSeconds float64 `json:"lag_seconds"`
	// DeadLetters counts the open ones that taint the shard.
	DeadLetters int `json:"dead_letters"`
	// Verified is the last verification that anybody made; nil when Redis knows of none.
	Verified *Verified `json:"verified,omitempty"`
}

// Verified is what is kept of a verification.
type Verified struct {
	AtMs              int64  `json:"at_ms"`
	State             string `json:"state"`
	Seq               int64  `json:"seq"`
	Differences       int    `json:"differences"`
	OversellIncidents int    `json:"oversell_incidents"`
	// GoodAtMs is when one last compared everything and found nothing; 0 never.
	GoodAtMs int64 `json:"good_at_ms"`
}

// Status tells where every shard stands that the ledger knows, in the order of their names. It changes
// nothing. An error means that Redis or the ledger do not answer.
func (r *Reconciler) Status(ctx context.Context) ([]ShardStatus, error) {
	ids, err := r.ledger.Shards(ctx)
	if err != nil {
		return nil, step("read shards", err)
	}
	taints, err := r.ledger.Taints(ctx)
	if err != nil {
		return nil, step("count dead letters", err)
	}
	sortShards(ids)
	all := make([]ShardStatus, len(ids))
	for i, id := range ids {
		if all[i], err = r.shardStatus(ctx, id, taints[id]); err != nil {
			return nil, fmt.Errorf("status of %s: %w", id.Sale, err)
		}
	}
	return all, nil
}

// shardStatus judges as a worker would. A verdict from a stale head is not believed: head and look are not of
// one moment, so one that is worse than a drain is looked at again.
func (r *Reconciler) shardStatus(ctx context.Context, id ledger.Shard, taints int) (ShardStatus, error) {
	st := ShardStatus{Sale: id.Sale, Shard: id.Number, DeadLetters: taints}
	sh := r.open(id)
	for range verifyAttempts {
		head, err := r.ledger.Head(ctx, id)
		if err != nil {
			return st, step("read head", err)
		}
		s, err := lookAfter(ctx, sh, id, head, 1)
		if err != nil {
			return st, err
		}
		st.Epoch, st.Seq, st.RedisEpoch, st.RedisSeq = head.Epoch, head.Seq, s.Epoch, s.Seq
		st.LagEvents, st.LagSeconds = lag(&s, head)
		v := judge(s, head, r.opts.MaxClockStepMs)
		st.State, st.Reason, st.Detail = statusOf(v, s.Reason, taints)
		if v.what == verdictNothing || v.what == verdictDrain || v.what == verdictCreate {
			break
		}
	}
	text, err := sh.LastVerified(ctx)
	if err != nil {
		return st, err
	}
	if v := (Verified{}); text != "" && json.Unmarshal([]byte(text), &v) == nil {
		st.Verified = &v
	}
	return st, nil
}

func statusOf(v verdict, closed string, taints int) (state, reason, detail string) {
	switch v.what {
	case verdictNothing:
		return StatusOpen, "", ""
	case verdictCreate:
		return StatusWaiting, "", ""
	case verdictFreeze:
		return StatusFrozen, v.reason, v.detail
	case verdictRebuild:
		if closed != "" {
			v.detail += "; closed: " + closed
		}
		if taints > 0 {
			return StatusTainted, v.reason, v.detail
		}
		return StatusRecovering, v.reason, v.detail
	default:
		return StatusDraining, "", ""
	}
}

// lag is how far Redis is ahead of a head, and the age of the oldest event between them in seconds.
func lag(s *sight, head ledger.Head) (events int64, seconds float64) {
	if s.Missing || s.Seq <= head.Seq {
		return 0, 0
	}
	if len(s.events) > 0 {
		seconds = age(s.NowMs, s.events[0].AtMs)
	}
	return s.Seq - head.Seq, seconds
}

// noteVerified keeps what a verification found, for Status. That it cannot is no failure of it.
func (r *Reconciler) noteVerified(ctx context.Context, report *Report) {
	if report.State == VerifiedWaiting {
		return
	}
	sh := r.open(ledger.Shard{Sale: report.Sale, Number: report.Shard})
	v := Verified{
		AtMs: report.AtMs, State: report.State, Seq: report.Seq, Differences: report.differences(),
		OversellIncidents: report.OversellIncidents,
	}
	if report.Good() {
		v.GoodAtMs = report.AtMs
	} else if text, err := sh.LastVerified(ctx); err == nil {
		var before Verified
		_ = json.Unmarshal([]byte(text), &before) // Without it there was none.
		v.GoodAtMs = before.GoodAtMs
	}
	text, err := json.Marshal(v)
	if err == nil {
		err = sh.NoteVerified(ctx, string(text))
	}
	if err != nil {
		r.m.errors.WithLabelValues("note verification").Inc()
	}
}
