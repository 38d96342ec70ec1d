package ledger

import (
	"encoding/json"
	"time"

	"flashgate/sale"
)

// RebuildData is the data of a rebuilt event as this program writes it: what the fold reads, and what an
// operator said.
type RebuildData struct {
	sale.RebuiltData
	// Note is the operator's reason.
	Note string `json:"note,omitempty"`
	// Keep says whose state was taken when the ledger had lost its tail: redis or ledger. Lost is the
	// position of Redis that was adopted or given up.
	Keep string `json:"keep,omitempty"`
	Lost string `json:"lost,omitempty"`
}

// auditRebuild makes the audit entry of a rebuild that an operator asked for.
func (c *Changes) auditRebuild(e *sale.Event) error {
	var data RebuildData
	if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
		return err
	}
	action := ActionShardRebuild
	if data.Keep != "" {
		action = ActionShardAdopt
	}
	c.Audit = append(c.Audit, AuditEntry{
		At: time.UnixMilli(e.AtMs).UTC(), Actor: e.Actor, Action: action, Subject: e.Sale + "/shard",
		After: auditText(struct {
			Epoch int64 `json:"epoch"`
			Seq   int64 `json:"seq"`
			RebuildData
		}{e.Epoch, e.Seq, data}), Reason: data.Note,
	})
	return nil
}
