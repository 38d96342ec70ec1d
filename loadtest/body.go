package loadtest

import (
	"bytes"
	"encoding/json"
	"strconv"

	"flashgate/sale"
)

// call is the body of the storefront's verbs; what is empty is left out.
type call struct {
	Sale          string      `json:"sale"`
	ReservationID string      `json:"reservation_id"`
	Customer      string      `json:"customer,omitempty"`
	Lines         []sale.Line `json:"lines,omitempty"`
	OrderID       string      `json:"order_id,omitempty"`
	Extension     int64       `json:"extension,omitempty"`
	Restock       bool        `json:"restock,omitempty"`
	Reason        string      `json:"reason,omitempty"`
	Tier          string      `json:"tier,omitempty"`
	Admission     string      `json:"admission,omitempty"`
}

// appendTo writes what encoding/json would.
func (b *call) appendTo(to []byte) []byte {
	to = appendText(append(to, `{"sale":`...), b.Sale)
	to = appendText(append(to, `,"reservation_id":`...), b.ReservationID)
	to = appendField(to, `,"customer":`, b.Customer)
	if len(b.Lines) > 0 {
		to = append(to, `,"lines":[`...)
		for i := range b.Lines {
			if i > 0 {
				to = append(to, ',')
			}
			to = appendText(append(to, `{"sku":`...), b.Lines[i].SKU)
			to = strconv.AppendInt(append(to, `,"qty":`...), b.Lines[i].Qty, 10)
			to = append(appendField(to, `,"location":`, b.Lines[i].Location), '}')
		}
		to = append(to, ']')
	}
	to = appendField(to, `,"order_id":`, b.OrderID)
	if b.Extension != 0 {
		to = strconv.AppendInt(append(to, `,"extension":`...), b.Extension, 10)
	}
	if b.Restock {
		to = append(to, `,"restock":true`...)
	}
	to = appendField(to, `,"reason":`, b.Reason)
	to = appendField(to, `,"tier":`, b.Tier)
	return append(appendField(to, `,"admission":`, b.Admission), '}')
}

// appendField leaves out what is empty.
func appendField(to []byte, name, text string) []byte {
	if text == "" {
		return to
	}
	return appendText(append(to, name...), text)
}

func appendText(to []byte, text string) []byte {
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&':
			quoted, err := json.Marshal(text)
			if err != nil {
				panic(err) // It takes any text.
			}
			return append(to, quoted...)
		}
	}
	return append(append(append(to, '"'), text...), '"')
}

// reply is what any of the answers may hold.
type reply struct {
	Code         string      `json:"code"`
	State        sale.State  `json:"state"`
	Customer     string      `json:"customer"`
	OrderID      string      `json:"order_id"`
	Durable      bool        `json:"durable"`
	Lines        []sale.Line `json:"lines"`
	HeldAt       string      `json:"held_at"`
	ExpiresAt    string      `json:"expires_at"`
	RetryAfterMs int64       `json:"retry_after_ms"`
	// Of a ticket.
	Ticket      string `json:"ticket"`
	Admission   string `json:"admission"`
	PollAfterMs int64  `json:"poll_after_ms"`
}

// read takes a document apart as encoding/json would, which it leaves everything to that is not ordinary.
func (r *reply) read(body []byte, known *words) error {
	s := scan{rest: body, known: known}
	if s.reply(r); !s.odd && len(bytes.TrimSpace(s.rest)) == 0 {
		return nil
	}
	*r = reply{}
	return json.Unmarshal(body, r)
}

// words are texts that come again and again: states, codes, SKUs, locations.
type words struct{ seen map[string]string }

const wordsMax = 1024

func (w *words) text(b []byte) string {
	if text, ok := w.seen[string(b)]; ok {
		return text
	}
	text := string(b)
	if len(w.seen) < wordsMax {
		if w.seen == nil {
			w.seen = map[string]string{}
		}
		w.seen[text] = text
	}
	return text
}

// scan reads a flat document, whose only list is that of its lines. odd is set by anything else, from escapes to
// mistakes.
type scan struct {
	rest  []byte
	known *words
	odd   bool
}

func (s *scan) reply(r *reply) {
	s.members(func(name []byte) {
		switch string(name) {
		case "code":
			r.Code = s.known.text(s.text())
		case "state":
			r.State = sale.State(s.known.text(s.text()))
		case "customer":
			r.Customer = string(s.text())
		case "order_id":
			r.OrderID = string(s.text())
		case "durable":
			r.Durable = s.truth()
		case "lines":
			r.Lines = s.lines()
		case "held_at":
			r.HeldAt = string(s.text())
		case "expires_at":
			r.ExpiresAt = string(s.text())
		case "retry_after_ms":
			r.RetryAfterMs = s.number()
		case "ticket":
			r.Ticket = string(s.text())
		case "admission":
			r.Admission = string(s.text())
		case "poll_after_ms":
			r.PollAfterMs = s.number()
		default:
			s.skip()
		}
	})
}

func (s *scan) lines() (all []sale.Line) {
	if s.must('['); s.next() == ']' {
		s.must(']')
		return []sale.Line{}
	}
	for !s.odd {
		var l sale.Line
		s.members(func(name []byte) {
			switch string(name) {
			case "sku":
				l.SKU = s.known.text(s.text())
			case "qty":
				l.Qty = s.number()
			case "location":
				l.Location = s.known.text(s.text())
			default:
				s.skip()
			}
		})
		if all = append(all, l); s.next() != ',' {
			break
		}
		s.must(',')
	}
	s.must(']')
	return all
}

// members reads an object; value must read the value of the name.
func (s *scan) members(value func(name []byte)) {
	if s.must('{'); s.next() == '}' {
		s.must('}')
		return
	}
	for !s.odd {
		name := s.text()
		for _, c := range name {
			// encoding/json takes other cases for the same name.
			s.odd = s.odd || c != '_' && (c < 'a' || c > 'z')
		}
		s.must(':')
		if s.odd {
			return
		}
		if value(name); s.next() != ',' {
			break
		}
		s.must(',')
	}
	s.must('}')
}

// next is the byte that comes; 0 when none does, or after something odd.
func (s *scan) next() byte {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\n') {
		s.rest = s.rest[1:]
	}
	if s.odd || len(s.rest) == 0 {
		return 0
	}
	return s.rest[0]
}

func (s *scan) must(c byte) {
	if s.next() != c {
		s.odd = true
		return
	}
	s.rest = s.rest[1:]
}

func (s *scan) text() []byte {
	if s.must('"'); s.odd {
		return nil
	}
	for i, c := range s.rest {
		switch {
		case c == '"':
			text := s.rest[:i]
			s.rest = s.rest[i+1:]
			return text
		case c < ' ' || c >= 0x7f || c == '\\':
			s.odd = true
			return nil
		}
	}
	s.odd = true
	return nil
}

// number reads a whole one of up to 15 digits.
func (s *scan) number() (n int64) {
	s.next()
	digits := 0
	for digits < len(s.rest) && s.rest[digits] >= '0' && s.rest[digits] <= '9' {
		n = 10*n + int64(s.rest[digits]-'0')
		digits++
		s.odd = s.odd || digits > 15
		if s.odd {
			return 0
		}
	}
	s.odd = s.odd || digits == 0 || digits > 1 && s.rest[0] == '0'
	s.rest = s.rest[digits:]
	return n
}

func (s *scan) truth() bool {
	word := "false"
	if s.next() == 't' {
		word = "true"
	}
	if !bytes.HasPrefix(s.rest, []byte(word)) {
		s.odd = true
		return false
	}
	s.rest = s.rest[len(word):]
	return word == "true"
}

// skip passes by a value that nobody asks about.
func (s *scan) skip() {
	switch s.next() {
	case '"':
		s.text()
	case 't', 'f':
		s.truth()
	default:
		s.number()
	}
}
