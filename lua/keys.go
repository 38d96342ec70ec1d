package lua

import "strconv"

// WatermarkChannel is where reconcilers publish how far the ledger has come.
const WatermarkChannel = "fg:watermarks"

// WakeChannel is where gateways publish that an answer waits for the ledger.
const WakeChannel = "fg:wakes"

// era is one life of a shard's data as this process knows it.
type era struct {
	epoch int64
	text  string
	keys  []string
}

// Places among them.
const (
	saleKey    = 0
	eventsKey  = 4
	recordsKey = 5
)

// tag is the common beginning of a shard's keys; the braces keep them in one slot.
func tag(sale string, shard int) string {
	return "fg:{" + sale + ":" + strconv.Itoa(shard) + "}:"
}

// newEra names the fourteen keys of shared/shard.lua.
func newEra(sale string, shard int, epoch int64) *era {
	t, n := tag(sale, shard), strconv.FormatInt(epoch, 10)
	in := t + n + ":"
	return &era{epoch: epoch, text: n, keys: []string{
		t + "sale", in + "stock", in + "customers", in + "deadlines", in + "events", in + "records",
		in + "finished", in + "a:", in + "l:", in + "o:", t + "queue:", in + "waitlist", in + "w:", in + "offers",
	}}
}
