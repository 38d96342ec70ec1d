package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"flashgate/ledger"
)

// auditLimitMax is the most entries that one call prints.
const auditLimitMax = 10_000

type auditCmd struct {
	ledgerFlags
	After   int64  `help:"Only entries with a higher number." placeholder:"ID"`
	Limit   int    `default:"100" help:"The most entries that are printed, 1 to 10000 (default 100)." placeholder:"N"`
	Subject string `help:"Only of what begins so: a sale, SALE/SKU/LOCATION or a key's id." placeholder:"PREFIX"`
	Action  string `help:"Only entries of this action, such as stock.adjust." placeholder:"ACTION"`
	JSON    bool   `name:"json" help:"Print a JSON list, with before and after whole."`
}

// Help shows an example.
func (auditCmd) Help() string {
	return `Prints who changed what and why, oldest first: sales, stock and keys, with what was and what is. No
secret is in it.

Example:
  flashgate audit --subject sneaker-drop/ --action stock.adjust --ledger postgres://flashgate@db/flashgate`
}

// Run prints a part of the audit log.
func (a auditCmd) Run(ctx context.Context, c console) error {
	if a.Limit < 1 || a.Limit > auditLimitMax {
		return usageError{fmt.Errorf("--limit must be 1 to %d", auditLimitMax)}
	}
	if a.After < 0 {
		return usageError{errors.New("--after must be 0 or more")}
	}
	l, err := a.openForTools(ctx, c)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	filter := ledger.AuditFilter{SubjectPrefix: a.Subject, Action: a.Action}
	entries, err := l.FilteredAuditLog(ctx, filter, a.After, a.Limit)
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	if a.JSON {
		err = printJSON(c.out, listAudit(entries))
	} else {
		var page bytes.Buffer
		for i := range entries {
			writeAudit(&page, &entries[i])
		}
		_, err = c.out.Write(page.Bytes())
	}
	if n := len(entries); n == a.Limit {
		fmt.Fprintf(c.err, "there may be more: --after %d\n", entries[n-1].ID)
	}
	return err
}

// auditLine is an entry in JSON.
type auditLine struct {
	ID      int64           `json:"id"`
	At      time.Time       `json:"at"`
	Actor   string          `json:"actor"`
	Action  string          `json:"action"`
	Subject string          `json:"subject"`
	Reason  string          `json:"reason,omitempty"`
	Before  json.RawMessage `json:"before,omitempty"`
	After   json.RawMessage `json:"after,omitempty"`
}

func listAudit(entries []ledger.AuditEntry) []auditLine {
	list := make([]auditLine, len(entries))
	for i := range entries {
		e := &entries[i]
		list[i] = auditLine{
			e.ID, inMs(e.At), e.Actor, e.Action, e.Subject, e.Reason,
			json.RawMessage(e.Before), json.RawMessage(e.After),
		}
	}
	return list
}

// writeAudit writes an entry as a line, and below it what changed.
func writeAudit(page *bytes.Buffer, e *ledger.AuditEntry) {
	fmt.Fprintf(page, "%d  %s  %s  %s  %s\n", e.ID, when(e.At), plain(e.Actor), plain(e.Action), plain(e.Subject))
	if e.Reason != "" {
		fmt.Fprintf(page, "    reason: %s\n", plain(e.Reason))
	}
	for _, change := range changes(e.Before, e.After) {
		fmt.Fprintf(page, "    %s\n", plain(change))
	}
}

// plain keeps what others wrote from moving the cursor or turning the text around.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// changes are the fields that differ between two JSON texts, by name; an empty text has none.
func changes(before, after string) []string {
	old, fields := fieldsOf(before), fieldsOf(after)
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		was, is := old[name], fields[name]
		switch was {
		case is:
		case "":
			lines = append(lines, name+": "+is)
		default:
			lines = append(lines, name+": "+was+" -> "+is)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old)) {
		if _, stays := fields[name]; !stays {
			lines = append(lines, name+": "+old[name]+" -> gone")
		}
	}
	return lines
}

// fieldsOf flattens a JSON text into its values by their names, such as config.items.0.sku.
func fieldsOf(text string) map[string]string {
	fields := map[string]string{}
	if text == "" {
		return fields
	}
	var v any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		fields["text"] = text
		return fields
	}
	flatten(fields, "", v)
	return fields
}

func flatten(fields map[string]string, name string, v any) {
	inner := func(part string, v any) {
		if name != "" {
			part = name + "." + part
		}
		flatten(fields, part, v)
	}
	switch v := v.(type) {
	case map[string]any:
		for part, v := range v {
			inner(part, v)
		}
	case []any:
		for i, v := range v {
			inner(strconv.Itoa(i), v)
		}
	case string:
		fields[name] = strconv.Quote(v)
	default:
		fields[name] = fmt.Sprint(v)
	}
}
