package ledger

import (
	"encoding/json"
	"fmt"
	"time"

	"flashgate/sale"
)

// VersionAudit is the audit entry of a new version after the one before it; before is nil for a new
// sale. Its time is that of the version.
func VersionAudit(before *sale.Version, v *sale.Version) (AuditEntry, error) {
	entry := AuditEntry{
		At: time.UnixMilli(int64(v.CreatedAt)).UTC(), Actor: v.Actor, Action: ActionSalePut, Subject: v.Sale,
		Reason: v.Reason,
	}
	var err error
	if entry.After, err = versionText(v); err != nil {
		return entry, err
	}
	if before == nil {
		return entry, nil
	}
	if before.Lifecycle != v.Lifecycle {
		switch v.Lifecycle {
		case sale.Live:
			entry.Action = ActionSaleResume
		case sale.Paused:
			entry.Action = ActionSalePause
		case sale.Closed:
			entry.Action = ActionSaleClose
		}
	}
	entry.Before, err = versionText(before)
	return entry, err
}

func versionText(v *sale.Version) (string, error) {
	text, err := json.Marshal(struct {
		Version   int64          `json:"version"`
		Lifecycle sale.Lifecycle `json:"lifecycle"`
		Config    *sale.Config   `json:"config"`
	}{v.Version, v.Lifecycle, &v.Config})
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", v.Sale, err)
	}
	return string(text), nil
}
