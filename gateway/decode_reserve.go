package gateway

// decodeReserveFast is decodeFast for a reserve.
func decodeReserveFast(b []byte, body *ReserveRequest, with fields) bool {
	if readReserve(b, body) {
		body.check(&with)
		return len(with.errs) == 0
	}
	*body = ReserveRequest{}
	return decodeFast(b, body, with)
}

// readReserve reads the one hot body without reflection: an object of text and whole numbers, each name
// once. Whatever else a body may rightly hold, escapes, lines, other alphabets, null, it leaves to the typed
// decoder, and whatever is wrong too; then to is not to be used. What it takes the typed decoder takes alike.
func readReserve(b []byte, to *ReserveRequest) bool {
	r := reserveReader{text: string(b)}
	if !r.next('{') {
		return false
	}
	var seen uint
	for first := true; ; first = false {
		if r.next('}') {
			r.space()
			return !first && r.at == len(r.text)
		}
		if !first && !r.next(',') {
			return false
		}
		name, ok := r.string()
		if !ok || !r.next(':') {
			return false
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
		default:
			return false
		}
		if seen&bit != 0 {
			return false
		}
		seen |= bit
		if field == nil {
			to.Qty, ok = r.number()
		} else if *field, ok = r.string(); *field == "" {
			return false // Text that is empty means something else than none.
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
