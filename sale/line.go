package sale

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Line is a quantity of one SKU at one location. In a request the location may be empty: the
// sale's allocation rule picks.
type Line struct {
	SKU      string `json:"sku"`
	Qty      int64  `json:"qty"`
	Location string `json:"location,omitempty"`
}

// NormalizeLines sums lines of the same SKU and location and sorts them: by SKU, and within one
// SKU the named locations before the open one, so that an open line never takes what a named
// one needs.
func NormalizeLines(lines []Line) []Line {
	if len(lines) == 1 {
		return lines
	}
	out := slices.Clone(lines)
	slices.SortFunc(out, func(a, b Line) int {
		if c := cmp.Compare(a.SKU, b.SKU); c != 0 {
			return c
		}
		if (a.Location == "") != (b.Location == "") {
			if a.Location == "" {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.Location, b.Location)
	})
	kept := out[:0]
	for _, l := range out {
		if n := len(kept); n > 0 && kept[n-1].SKU == l.SKU && kept[n-1].Location == l.Location {
			kept[n-1].Qty += l.Qty
			continue
		}
		kept = append(kept, l)
	}
	return kept
}

// PackLines writes lines as "sku/location=qty;sku/location=qty", the form of scripts, stream and
// ledger. The grammar of SKU and location keeps the separators out of them.
func PackLines(lines []Line) string {
	if len(lines) == 0 {
		return ""
	}
	return string(AppendLines(make([]byte, 0, 24*len(lines)), lines))
}

// AppendLines appends PackLines to b.
func AppendLines(b []byte, lines []Line) []byte {
	for i, l := range lines {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, l.SKU...)
		b = append(b, '/')
		b = append(b, l.Location...)
		b = append(b, '=')
		b = strconv.AppendInt(b, l.Qty, 10)
	}
	return b
}

// ParseLines reads what PackLines wrote.
func ParseLines(packed string) ([]Line, error) {
	if packed == "" {
		return nil, nil
	}
	lines := make([]Line, 0, strings.Count(packed, ";")+1)
	for part := range strings.SplitSeq(packed, ";") {
		sku, rest, ok1 := strings.Cut(part, "/")
		location, number, ok2 := strings.Cut(rest, "=")
		qty, err := strconv.ParseInt(number, 10, 64)
		if !ok1 || !ok2 || err != nil || sku == "" {
			return nil, fmt.Errorf("packed lines: %.60q is not sku/location=qty", part)
		}
		lines = append(lines, Line{SKU: sku, Qty: qty, Location: location})
	}
	return lines, nil
}

// Units sums the quantities of lines.
func Units(lines []Line) int64 {
	var n int64
	for _, l := range lines {
		n += l.Qty
	}
	return n
}

// Fingerprint tells two requests with one id apart: 64 bits of SHA-256 over sale, customer and
// the normalized lines as asked, and nothing else, as 11 characters.
func Fingerprint(sale, customer string, normalized []Line) string {
	b := make([]byte, 0, 256) // holds all but long ones without asking for memory
	b = append(append(b, sale...), '\n')
	b = append(append(b, customer...), '\n')
	sum := sha256.Sum256(AppendLines(b, normalized))
	var text [11]byte
	base64.RawURLEncoding.Encode(text[:], sum[:8])
	return string(text[:])
}
