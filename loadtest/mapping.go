package loadtest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"flashgate/sale"
)

// Mapping says how another system's HTTP API is asked for what a crowd wants, so that both can be loaded
// alike. Path, headers and body may hold {id}, {customer}, {order}, {sku}, {qty}, {location} and {sale}; a
// cart is asked for by its first line.
type Mapping struct {
	Peer    string      `json:"peer"`
	Reserve MappedCall  `json:"reserve"`
	Confirm *MappedCall `json:"confirm,omitempty"`
	Release *MappedCall `json:"release,omitempty"`
	Cancel  *MappedCall `json:"cancel,omitempty"`
	// Read shows a reservation; it is asked for what was accepted, when all is over.
	Read *MappedCall `json:"read,omitempty"`
	// Stock is what the peer was given to sell, in units of each SKU, and CapPerCustomer what it lets one
	// customer have: an audit holds its answers against them. What is not given is not judged.
	Stock          map[string]int64 `json:"stock,omitempty"`
	CapPerCustomer int64            `json:"cap_per_customer,omitempty"`
}

// MappedCall is one call of a peer. What is no success and not sold out stays as it was answered.
type MappedCall struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
	// Success are the statuses that mean it was done, SoldOut those that mean nothing is left. SoldOutText
	// must be in the body too where it is given. Replay are those of Success that mean it had been done before;
	// an answer with the header Idempotent-Replayed: true says so too.
	Success     []int  `json:"success"`
	Replay      []int  `json:"replay,omitempty"`
	SoldOut     []int  `json:"sold_out,omitempty"`
	SoldOutText string `json:"sold_out_text,omitempty"`
}

// ownHeaders say where a request ends, and its connection.
var ownHeaders = []string{"Content-Length", "Transfer-Encoding", "Connection", "Expect", "Upgrade"}

// Validate says everything that is wrong with a mapping.
func (m *Mapping) Validate() (wrong []sale.FieldError) {
	add := func(bad bool, pointer, detail string) {
		if bad {
			wrong = append(wrong, sale.FieldError{Pointer: pointer, Detail: detail})
		}
	}
	add(m.Peer == "", "/peer", "is required: a name for reports")
	for at, c := range map[string]*MappedCall{
		"/reserve": &m.Reserve, "/confirm": m.Confirm, "/release": m.Release, "/cancel": m.Cancel,
		"/read": m.Read,
	} {
		if c == nil {
			continue
		}
		for _, status := range c.Replay {
			add(!slices.Contains(c.Success, status), at+"/replay", "must be among success")
		}
		add(!slices.Contains([]string{"GET", "POST", "PUT", "PATCH", "DELETE"}, c.Method), at+"/method",
			"must be GET, POST, PUT, PATCH or DELETE")
		add(!strings.HasPrefix(c.Path, "/"), at+"/path", "must begin with /")
		for name, value := range c.Headers {
			add(strings.ContainsAny(name+value, crlf), at+"/headers/"+name, "must be one line")
			add(slices.ContainsFunc(ownHeaders, func(own string) bool { return strings.EqualFold(own, name) }),
				at+"/headers/"+name, "is set by the load itself")
		}
		add(len(c.Success) == 0, at+"/success", "must name at least one status, such as [200, 201]")
	}
	for sku, units := range m.Stock {
		add(units < 0, "/stock/"+sku, "must not be negative")
	}
	add(m.CapPerCustomer < 0, "/cap_per_customer", "must not be negative")
	slices.SortFunc(wrong, func(a, b sale.FieldError) int { return strings.Compare(a.Pointer, b.Pointer) })
	return wrong
}

// peer asks another system.
type peer struct {
	*client
	calls map[Verb]*peerCall
}

// peerCall is a mapped call, with its headers as they are sent.
type peerCall struct {
	*MappedCall
	headers string
}

func newPeer(m *Mapping, o *Options) *peer {
	p := &peer{
		client: newClient([]string{o.BaseURL}, o.Token, o.Sale.Sale, o.Connections, o.Timeout),
		calls:  map[Verb]*peerCall{},
	}
	for verb, c := range map[Verb]*MappedCall{
		Reserve: &m.Reserve, Confirm: m.Confirm, Release: m.Release, Cancel: m.Cancel, Find: m.Read,
	} {
		if c != nil {
			p.calls[verb] = &peerCall{c, p.headers(c)}
		}
	}
	return p
}

// headers are those of a call, still to be filled in. A Host is that of all calls.
func (p *peer) headers(c *MappedCall) string {
	var b strings.Builder
	typed := c.Body == ""
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if strings.EqualFold(name, "Host") {
			for _, w := range p.wires {
				w.host = c.Headers[name]
			}
			continue
		}
		typed = typed || strings.EqualFold(name, "Content-Type")
		b.WriteString(name + ": " + c.Headers[name] + crlf)
	}
	if !typed {
		b.WriteString("Content-Type: application/json" + crlf)
	}
	return b.String()
}

// unmapped is the code of what a peer cannot be asked.
const unmapped = "not-in-the-mapping"

func (p *peer) do(ctx context.Context, a *Answer, body call) {
	c := p.calls[a.Verb]
	if c == nil {
		a.Status, a.Code = http.StatusNotImplemented, unmapped
		return
	}
	line := sale.Line{Qty: 1}
	if len(body.Lines) > 0 {
		line = body.Lines[0]
	}
	fill := strings.NewReplacer("{id}", a.ID, "{customer}", a.Customer, "{order}", body.OrderID, "{sku}", line.SKU,
		"{qty}", strconv.FormatInt(line.Qty, 10), "{location}", line.Location, "{sale}", p.sale)
	var content []byte
	if c.Body != "" {
		content = []byte(fill.Replace(c.Body))
	}
	err := p.roundTrip(ctx, c.Method, escaped(fill.Replace(c.Path)), fill.Replace(c.headers), content,
		func(resp *response, _ *words) { p.judge(a, c, resp, line) })
	if err != nil {
		a.Gone = err.Error()
	}
}

// escaped is a path with what cannot stand in a request line as %XX.
func escaped(path string) string {
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// judge turns a peer's answer into one of ours.
func (p *peer) judge(a *Answer, c *peerCall, resp *response, line sale.Line) {
	a.Status = resp.status
	switch {
	case slices.Contains(c.SoldOut, a.Status) && strings.Contains(string(resp.body), c.SoldOutText):
		a.Status, a.Code = http.StatusConflict, "insufficient-stock"
	case !slices.Contains(c.Success, a.Status):
		a.Code = fmt.Sprintf("peer-%d", a.Status)
		if a.Status < 300 {
			a.Status = http.StatusBadGateway // Not what the mapping calls success.
		}
	case !json.Valid(resp.body) && len(resp.body) > 0:
		a.Status, a.Gone = 0, nonsense+"not JSON"
	case a.Verb == Reserve:
		a.Replayed = c.replayed(resp)
		a.Status, a.State, a.Lines = http.StatusCreated, sale.StateHeld, []sale.Line{line}
	default:
		a.Replayed = c.replayed(resp)
		a.Status, a.Durable = http.StatusOK, true
		a.State = map[Verb]sale.State{
			Confirm: sale.StateConfirmed, Release: sale.StateReleased, Cancel: sale.StateCancelled,
		}[a.Verb]
	}
}

func (c *MappedCall) replayed(resp *response) bool {
	return slices.Contains(c.Replay, resp.status) || resp.replayed
}

func (p *peer) look(_ context.Context, a *Answer, _ string) {
	a.Status, a.Code = http.StatusNotImplemented, unmapped
}

func (p *peer) join(_ context.Context, a *Answer, _ string) reply {
	a.Status, a.Code = http.StatusNotImplemented, unmapped
	return reply{}
}

func (p *peer) ticket(_ context.Context, a *Answer, _ string) reply {
	a.Status, a.Code = http.StatusNotImplemented, unmapped
	return reply{}
}

// availability is of no peer: there are no samples, which nobody misses.
func (p *peer) availability(context.Context) (int, []ItemStock, error) {
	return http.StatusNotImplemented, nil, nil
}
