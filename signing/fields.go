package signing

import (
	"encoding/binary"
	"errors"
)

// ErrFields says that a payload was not made by Fields.
var ErrFields = errors.New("not a list of fields")

// Fields packs values, each with its length before it, so that no two lists give the same bytes.
func Fields(values ...string) []byte {
	size := 0
	for _, v := range values {
		size += 2 + len(v)
	}
	b := make([]byte, 0, size)
	for _, v := range values {
		b = binary.AppendUvarint(b, uint64(len(v)))
		b = append(b, v...)
	}
	return b
}

// ParseFields returns the values that Fields packed, or ErrFields. Their number is the caller's to
// check.
func ParseFields(b []byte) ([]string, error) {
	var values []string
	for len(b) > 0 {
		n, width := binary.Uvarint(b)
		// A length has one spelling only: no zero byte at its end.
		if width <= 0 || (width > 1 && b[width-1] == 0) || n > uint64(len(b)-width) {
			return nil, ErrFields
		}
		end := width + int(n)
		values = append(values, string(b[width:end]))
		b = b[end:]
	}
	return values, nil
}
