package gateway

import "flashgate/sale"

// decodeReserveFast is decodeFast for a reserve.
func decodeReserveFast(b []byte, body *ReserveRequest, with fields) bool {
	if readReserve(b, body) {
		body.check(&with)
		return len(with.errs) == 0
	}
	*body = ReserveRequest{}
	return decodeFast(b, body, with)
}

// readReserve reads the one hot body without reflection: an object of text, whole numbers and lines, each name
// once. Whatever else a body may rightly hold, escapes, other alphabets, null, it leaves to the typed
// decoder, and whatever is wrong too; then to is not to be used. What it takes the typed decoder takes alike.
func readReserve(b []byte, to *ReserveRequest) bool {
	r := reserveReader{text: string(b)}
	if !r.next('{') {
		return false
	}
	var seen uint
	for first := true; ; first = false {
		name, ended, ok := r.name(first)
		if ended || !ok {
			r.space()
			return ok && r.at == len(r.text)
		}
		var field *string
		var bit uint
		switch name {
		case "reservation_id":
			field, bit = &to.ReservationID, 1<<0
		case "sale":
			field, bit = &to.Sale, 1<<1
		case "customer":
			field, bit = &to.Customer, 1<<2
		case "sku":
			field, bit = &to.SKU, 1<<3
		case "location":
			field, bit = &to.Location, 1<<4
		case "device":
			field, bit = &to.Device, 1<<5
		case "client_ip":
			field, bit = &to.ClientIP, 1<<6
		case "tier":
			field, bit = &to.Tier, 1<<7
		case "admission":
			field, bit = &to.Admission, 1<<8
		case "qty":
			bit = 1 << 9
		case "lines":
			bit = 1 << 10
		default:
			return false
		}
		if seen&bit != 0 {
			return false
		}
		seen |= bit
		switch name {
		case "qty":
			to.Qty, ok = r.number()
		case "lines":
			to.Lines, ok = r.lines()
		default:
			*field, ok = r.given()
		}
		if !ok {
			return false
		}
	}
}

// reserveReader goes through a body once. All text that it returns is of one copy of the body.
type reserveReader struct {
	text string
	at   int
}

func (r *reserveReader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// next takes a character, after space, if it is the next.
func (r *reserveReader) next(c byte) bool {
	r.space()
	if r.at < len(r.text) && r.text[r.at] == c {
		r.at++
		return true
	}
	return false
}

// name takes the name of the next member of an object, and the colon; or its end, which is not ok when it is
// the first.
func (r *reserveReader) name(first bool) (name string, ended, ok bool) {
	if r.next('}') {
		return "", true, !first
	}
	if !first && !r.next(',') {
		return "", false, false
	}
	name, ok = r.string()
	return name, false, ok && r.next(':')
}

// lines takes one line or more.
func (r *reserveReader) lines() (list []Line, ok bool) {
	if !r.next('[') {
		return nil, false
	}
	for {
		var l Line
		if len(list) == sale.MaxLines || !r.line(&l) {
			return nil, false
		}
		list = append(list, l)
		if r.next(']') {
			return list, true
		}
		if !r.next(',') {
			return nil, false
		}
	}
}

func (r *reserveReader) line(to *Line) bool {
	if !r.next('{') {
		return false
	}
	for first := true; ; first = false {
		name, ended, ok := r.name(first)
		if ended || !ok {
			return ok
		}
		switch {
		case name == "sku" && to.SKU == "":
			to.SKU, ok = r.given()
		case name == "location" && to.Location == "":
			to.Location, ok = r.given()
		case name == "qty" && to.Qty == 0:
			to.Qty, ok = r.number()
		default:
			return false
		}
		if !ok {
			return false
		}
	}
}

// given takes text that is not empty: that means something else than none.
func (r *reserveReader) given() (s string, ok bool) {
	s, ok = r.string()
	return s, ok && s != ""
}

// string takes text of printable ASCII without escapes.
func (r *reserveReader) string() (s string, ok bool) {
	if !r.next('"') {
		return "", false
	}
	for begin := r.at; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; {
		case c == '"':
			s = r.text[begin:r.at]
			r.at++
			return s, true
		case c == '\\' || c < ' ' || c > '~':
			return "", false
		}
	}
	return "", false
}

// maxDigits is what the largest quantity has, with room: larger numbers are for the other decoder to refuse.
const maxDigits = 9

// number takes a whole number above 0 in plain digits.
func (r *reserveReader) number() (n int64, ok bool) {
	r.space()
	begin := r.at
	for ; r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9'; r.at++ {
		if r.at-begin >= maxDigits {
			return 0, false
		}
		n = 10*n + int64(r.text[r.at]-'0')
	}
	// What follows is not looked at: only , and } may, so that a fraction ends in a refusal.
	return n, r.at > begin && r.text[begin] != '0'
}
