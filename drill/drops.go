//go:build unix

package drill

import (
	"time"

	"flashgate/loadtest"
	"flashgate/sale"
)

const (
	contenders = 8
	fewUnits   = 5
	// To a sale with a line come so many times fewer than to the crowd's; waiters stay this long after the last came.
	lineShare       = 8
	waitersPatience = 8 * time.Second
	waitersMax      = 1_000
	admitPerSecond  = 40
	admissionTime   = 10 * time.Second
)

// drop is a sale of a round.
type drop struct {
	config sale.Config
	// shoppers come to it, and in the end some more ask for its last item.
	shoppers loadtest.Options
	last     loadtest.Mix
	// rec is what all of them were told.
	rec *loadtest.Recording
}

// drops are the sales of the round.
func (r *round) drops() []*drop { return []*drop{r.crowd, r.list, r.room, r.contest} }

// emptied are those of which nobody can hold anything in the end.
func (r *round) emptied() []*drop { return []*drop{r.crowd, r.list, r.room} }

func dropConfig(id string, items ...sale.Item) sale.Config {
	now := time.Now()
	return sale.Config{
		Sale: id, OpensAt: sale.Moment(now.Add(-time.Minute).UnixMilli()),
		ClosesAt: sale.Moment(now.Add(24 * time.Hour).UnixMilli()), HoldSeconds: int64(holdTime / time.Second),
		Items: items,
	}
}

func inOne(onHand int64) []sale.Stock { return []sale.Stock{{Location: "berlin", OnHand: onHand}} }

// inBoth has what is on hand and the safety stock of each.
func inBoth(berlin, leipzig [2]int64) []sale.Stock {
	return []sale.Stock{
		{Location: "berlin", OnHand: berlin[0], Safety: berlin[1]},
		{Location: "leipzig", OnHand: leipzig[0], Safety: leipzig[1]},
	}
}

// plenty is an item that is never sold out: the last of a sale.
var plenty = sale.Item{SKU: "PLENTY", Stock: inOne(100_000)}

// crowdDrop is a drop with everything that goes wrong.
func (w *world) crowdDrop(name string) *drop {
	d := &drop{
		config: dropConfig(name,
			sale.Item{SKU: "SCARCE", CapPerCustomer: 1, Stock: inBoth([2]int64{15, 3}, [2]int64{8, 0})},
			sale.Item{SKU: "WANTED", CapPerCustomer: 2, Stock: inBoth([2]int64{60, 0}, [2]int64{40, 5})},
			plenty),
		shoppers: loadtest.Options{
			Shoppers: w.opts.Shoppers, Duration: w.opts.Duration, Mix: everybody, StockTries: 2, Patience: patience,
		},
		last: loadtest.Mix{Releasers: 1},
	}
	d.config.MaxExtensions, d.config.Caps = 1, sale.Caps{PerCustomer: 3, PerOrder: 3}
	return d
}

// everybody is the usual crowd and those who want their money back.
var everybody = func() loadtest.Mix {
	m := loadtest.DefaultMix
	m.Refunders = 6
	return m
}()

// listDrop has a waitlist: most wait, and others see to it that units come back.
func (w *world) listDrop(name string) *drop {
	d := &drop{
		config: dropConfig(name+"-list",
			sale.Item{SKU: "SOUGHT", CapPerCustomer: 2, Stock: inBoth([2]int64{12, 0}, [2]int64{6, 1})},
			sale.Item{SKU: "LIKED", Stock: inOne(10)},
			plenty),
		shoppers: loadtest.Options{
			Shoppers: max(1, w.opts.Shoppers/lineShare), Duration: w.opts.Duration, Patience: waitersPatience,
			StockTries: 1, Mix: loadtest.Mix{
				Waiters: 50, Abandoners: 15, Releasers: 15, DoubleClickers: 10, Refunders: 6, IDReusers: 4,
			},
		},
		last: loadtest.Mix{Releasers: 1},
	}
	d.config.Queue = &sale.Queue{
		Waitlist: &sale.Waitlist{Enabled: true, Max: waitersMax, OfferSeconds: int64(holdTime / time.Second)},
	}
	return d
}

// roomDrop has a waiting room, and some who ask without an admission.
func (w *world) roomDrop(name string) *drop {
	d := &drop{
		config: dropConfig(name+"-room", sale.Item{SKU: "ADMITTED", Stock: inOne(40)}, plenty),
		shoppers: loadtest.Options{
			Shoppers: max(1, w.opts.Shoppers/lineShare), Duration: w.opts.Duration, Patience: waitersPatience,
			StockTries: 1, Stay: probeFor, Mix: loadtest.Mix{Queuers: 3, Bots: 1},
		},
		last: loadtest.Mix{Queuers: 1},
	}
	d.config.Queue = &sale.Queue{WaitingRoom: &sale.WaitingRoom{
		Enabled: true, AdmitPerSecond: admitPerSecond, AdmissionSeconds: int64(admissionTime / time.Second),
	}}
	return d
}

// contestDrop is one SKU of few units, which are held until the round is over.
func (w *world) contestDrop(name string) *drop {
	d := &drop{
		config: dropConfig(name+"-contest", sale.Item{SKU: "FEW", Stock: inOne(fewUnits)}),
		shoppers: loadtest.Options{
			Shoppers: contenders, Duration: time.Millisecond, Stay: w.opts.Duration,
			Mix: loadtest.Mix{Contenders: 1}, StockTries: 1, Patience: patience,
		},
		last: loadtest.Mix{Contenders: 1},
	}
	d.config.HoldSeconds = 3600
	return d
}
