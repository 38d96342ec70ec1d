package ratelimit

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"flashgate/sale"
)

const (
	ms       = int64(time.Millisecond)
	testSale = "sneaker-drop"
	tenFive  = "customer,200000,10,enforce;" // 5 a second, 10 at once
)

// rig is a shield with a clock that stands still until it is moved.
type rig struct {
	*Shield
	now atomic.Int64
}

func newRig(t testing.TB, packed string, change func(*ShieldOptions)) *rig {
	t.Helper()
	r := &rig{}
	o := ShieldOptions{Now: r.now.Load}
	if change != nil {
		change(&o)
	}
	var err error
	r.Shield, err = NewShield(o)
	require.NoError(t, err)
	r.SetRules(testSale, sale.LimitReserve, parse(t, packed))
	return r
}

func by(customer string) *Attempt {
	return &Attempt{Sale: testSale, Group: sale.LimitReserve, Values: [3]string{customer}}
}

// charge sends n attempts that the script judges at once by these rules, and charges.
func (r *rig) charge(t testing.TB, a *Attempt, n int, packed string) {
	t.Helper()
	for range n {
		ticket, d := r.Arrive(a)
		require.Equal(t, Pass, d)
		r.Settle(&ticket, packed, true)
	}
}

// refused says what the shield says to one more attempt, which then does not come.
func (r *rig) refused(t testing.TB, a *Attempt) (Refusal, Decision) {
	t.Helper()
	ticket, d := r.Arrive(a)
	var why Refusal
	if d == Suspect {
		why, d = r.Recheck(&ticket)
	}
	r.Settle(&ticket, "", false)
	return why, d
}

func TestShieldRefusesWhatItSawSpent(t *testing.T) {
	r := newRig(t, tenFive, nil)
	r.charge(t, by("c-1"), 10, tenFive)
	ticket, d := r.Arrive(by("c-1"))
	require.Equal(t, Suspect, d)
	why, d := r.Recheck(&ticket)
	require.Equal(t, Refuse, d)
	require.Equal(t, Refusal{Dimension: 0, RetryUs: 200_000, Source: FromSpending}, why)
	_, d = r.refused(t, by("c-2"))
	require.Equal(t, Pass, d, "others are not limited")

	r.now.Store(149 * ms)
	_, d = r.refused(t, by("c-1"))
	require.Equal(t, Refuse, d)
	r.now.Store(150 * ms) // the script may judge 50 ms later
	_, d = r.refused(t, by("c-1"))
	require.Equal(t, Pass, d)
}

func TestShieldWithoutRules(t *testing.T) {
	r := newRig(t, "customer,200000,1,shadow;", nil)
	for _, a := range []*Attempt{by("c-1"), {Sale: "other", Group: sale.LimitReads, Values: [3]string{"c", "ip", "d"}}} {
		r.charge(t, a, 5, "")
		_, d := r.Alone(a)
		require.Equal(t, Pass, d)
	}
	require.Equal(t, "customer,200000,1,shadow;", r.Rules(testSale, sale.LimitReserve).Packed())
	require.Nil(t, r.Rules(testSale, sale.LimitReads))
	r.SetRules(testSale, sale.LimitReserve, parse(t, ""))
	require.Nil(t, r.Rules(testSale, sale.LimitReserve))
	r.SetRules(testSale, sale.LimitReserve, parse(t, tenFive))
	r.charge(t, &Attempt{Sale: testSale, Group: sale.LimitReserve, Values: [3]string{"", "ip"}}, 20, tenFive)
	for i := range r.tables {
		require.Empty(t, r.tables[i].list, "what no rule looks at is not kept")
	}
}

// A replay, a closed window and a lost answer cost nothing, however many there are.
func TestShieldChargesWhatTheScriptCharged(t *testing.T) {
	r := newRig(t, tenFive, nil)
	flying := make([]Ticket, 0, 10)
	for range 10 {
		ticket, d := r.Arrive(by("c-1"))
		require.Equal(t, Pass, d)
		flying = append(flying, ticket)
	}
	one, d := r.Arrive(by("c-1"))
	require.Equal(t, Suspect, d, "ten may be charged already")
	_, d = r.Recheck(&one)
	require.Equal(t, Pass, d, "and may be replays")
	for i := range flying {
		r.Settle(&flying[i], [...]string{"", tenFive}[i%2], i%2 == 0) // unknown, or judged and not charged
		r.Settle(&flying[i], tenFive, true)                           // twice is once
	}
	r.Settle(&one, "ip,1,1,enforce;", true) // judged by rules that we do not know yet
	r.charge(t, by("c-1"), 10, tenFive)
	_, d = r.refused(t, by("c-1"))
	require.Equal(t, Refuse, d)
}

// Judged before a pause and answered after it: in the order of answers these would be more than the
// shared limit has.
func TestShieldChargesLateAnswers(t *testing.T) {
	packed := "customer,1000000,2,enforce;"
	r := newRig(t, packed, nil)
	late, _ := r.Arrive(by("c-1"))
	r.now.Store(5000 * ms)
	r.charge(t, by("c-1"), 1, packed)
	r.Settle(&late, packed, true)
	_, d := r.refused(t, by("c-1"))
	require.Equal(t, Pass, d, "the first came back long ago")
	r.charge(t, by("c-1"), 1, packed)

	late, _ = r.Arrive(by("c-2"))
	r.now.Add(400 * ms)
	r.charge(t, by("c-2"), 1, packed)
	r.Settle(&late, packed, true)
	why, d := r.refused(t, by("c-2"))
	require.Equal(t, Refuse, d, "both count")
	require.EqualValues(t, 600_000, why.RetryUs)
}

func TestShieldRemembersRefusals(t *testing.T) {
	packed := "customer,200000,10,enforce;ip,10000000,3,enforce;"
	a := &Attempt{Sale: testSale, Group: sale.LimitReserve, Values: [3]string{"c-1", "203.0.113.7"}}
	r := newRig(t, packed, nil)
	ticket, _ := r.Arrive(a)
	r.now.Store(10 * ms)
	r.Refused(&ticket, packed, 1, 8_000_000)
	why, d := r.refused(t, a)
	require.Equal(t, Refuse, d)
	require.Equal(t, Refusal{Dimension: 1, RetryUs: 7_990_000, Source: FromMemory}, why)
	_, d = r.refused(t, by("c-1"))
	require.Equal(t, Pass, d, "without the address nothing is known against it")
	r.now.Store(1009 * ms)
	_, d = r.refused(t, a)
	require.Equal(t, Refuse, d)
	r.now.Store(1010 * ms)
	_, d = r.refused(t, a)
	require.Equal(t, Pass, d, "a second later the limit is asked again")

	// What was too much for three may be enough for one.
	three := *a
	three.Cost = 3
	ticket, _ = r.Arrive(&three)
	r.Refused(&ticket, packed, 1, 15_000_000)
	_, d = r.refused(t, a)
	require.Equal(t, Pass, d)
	_, d = r.refused(t, &three)
	require.Equal(t, Refuse, d)

	four := *a
	four.Cost = 4
	why, d = r.refused(t, &four)
	require.Equal(t, Refuse, d)
	require.Equal(t, Refusal{Dimension: 1}, why, "never: it costs more than the burst")

	// What cannot be or was judged by other rules is not remembered.
	for _, c := range []struct {
		packed    string
		dimension int
		retryUs   int64
	}{{packed, 2, 1000_000}, {packed, 1, 0}, {"", 1, 1_000_000}, {packed, -1, 1_000_000}, {packed, 3, 1_000_000}, {tenFive, 0, 1_000_000}} {
		r := newRig(t, packed, nil)
		ticket, _ := r.Arrive(a)
		r.Refused(&ticket, c.packed, c.dimension, c.retryUs)
		_, d = r.refused(t, a)
		require.Equal(t, Pass, d)
	}
}

func TestShieldGoesOverToOtherRules(t *testing.T) {
	change := func(r *rig, packed string) { r.SetRules(testSale, sale.LimitReserve, parse(t, packed)) }
	raised, lowered := "customer,200000,12,enforce;", "customer,200000,5,enforce;"

	r := newRig(t, tenFive, nil)
	r.now.Store(1000 * ms)
	r.charge(t, by("c-1"), 10, tenFive)
	change(r, raised)
	r.charge(t, by("c-1"), 2, raised)
	_, d := r.refused(t, by("c-1"))
	require.Equal(t, Refuse, d, "raised by two")

	r = newRig(t, tenFive, nil)
	r.now.Store(1000 * ms)
	r.charge(t, by("c-1"), 6, tenFive)
	change(r, lowered)
	why, d := r.refused(t, by("c-1"))
	require.Equal(t, Refuse, d, "lowered below what is spent")
	require.EqualValues(t, 200_000, why.RetryUs, "as the scripts cut it")

	// The scripts may have changed over long before we hear of it, and have cut then.
	r = newRig(t, tenFive, nil)
	r.now.Store(1000 * ms)
	r.charge(t, by("c-1"), 10, tenFive)
	r.now.Store(1500 * ms)
	change(r, lowered)
	_, d = r.refused(t, by("c-1"))
	require.Equal(t, Pass, d)

	// Refusals are forgotten.
	r = newRig(t, tenFive, nil)
	ticket, _ := r.Arrive(by("c-1"))
	r.Refused(&ticket, tenFive, 0, 150_000)
	_, d = r.refused(t, by("c-1"))
	require.Equal(t, Refuse, d)
	change(r, tenFive)
	_, d = r.refused(t, by("c-1"))
	require.Equal(t, Refuse, d, "the same rules again")
	suspect, d := r.Arrive(by("c-1"))
	require.Equal(t, Suspect, d)
	change(r, raised)
	_, d = r.Recheck(&suspect)
	require.Equal(t, Pass, d, "nobody is refused by rules that are over")
	_, d = r.refused(t, by("c-1"))
	require.Equal(t, Pass, d)

	// No rules forget everything, and so do rules that were missed.
	for _, between := range []string{"", "customer,200000,10,shadow;"} {
		r = newRig(t, tenFive, nil)
		r.now.Store(1000 * ms)
		r.charge(t, by("c-1"), 10, tenFive)
		change(r, between)
		change(r, tenFive)
		_, d = r.refused(t, by("c-1"))
		require.Equal(t, Pass, d)
	}

	// The scripts may have cut by rules under which we never saw the customer.
	r = newRig(t, tenFive, nil)
	r.now.Store(1000 * ms)
	r.charge(t, by("c-1"), 10, tenFive)
	change(r, lowered)
	change(r, tenFive)
	_, d = r.refused(t, by("c-1"))
	require.Equal(t, Pass, d)

	// What was under way when the rules changed counts only by the rules that judged it.
	r = newRig(t, tenFive, nil)
	tickets := make([]Ticket, 20)
	for i := range tickets {
		tickets[i], d = r.Arrive(by("c-1"))
		if d == Suspect {
			_, d = r.Recheck(&tickets[i])
		}
		require.Equal(t, Pass, d)
	}
	change(r, lowered)
	for i := range tickets {
		r.Settle(&tickets[i], lowered, true)
	}
	_, d = r.refused(t, by("c-1"))
	require.Equal(t, Pass, d)
}

func TestShieldAlone(t *testing.T) {
	r := newRig(t, tenFive, nil)
	r.charge(t, by("c-1"), 3, tenFive)
	for range 7 {
		_, d := r.Alone(by("c-1"))
		require.Equal(t, Pass, d)
	}
	why, d := r.Alone(by("c-1"))
	require.Equal(t, Refuse, d)
	require.Equal(t, Refusal{RetryUs: 200_000}, why)
	r.now.Store(199 * ms)
	_, d = r.Alone(by("c-1"))
	require.Equal(t, Refuse, d, "without slack: nobody judges later")
	r.charge(t, by("c-1"), 7, tenFive) // the shared limit knows of three only
	r.now.Store(200 * ms)
	_, d = r.Alone(by("c-1"))
	require.Equal(t, Pass, d)
}

func TestShieldIsBounded(t *testing.T) {
	packed := "customer,3600000000,1,enforce;ip,1000,1,enforce;"
	for _, most := range []int{1, 10, 5000} {
		r := newRig(t, packed, func(o *ShieldOptions) { o.KeysMax, o.RuleSetsMax = most, 3 })
		count := func() (n int) {
			for i := range r.tables {
				require.LessOrEqual(t, len(r.tables[i].list), r.tables[i].most)
				require.Len(t, r.tables[i].index, len(r.tables[i].list))
				n += len(r.tables[i].list)
			}
			return n
		}
		for i := range 3 * most {
			a := by("c-" + strconv.Itoa(i))
			a.Values[1] = "ip-" + strconv.Itoa(i)
			ticket, _ := r.Arrive(a)
			r.Settle(&ticket, packed, true)
		}
		require.LessOrEqual(t, count(), most)
		require.GreaterOrEqual(t, count(), most*9/10)

		for i := range 10 {
			r.SetRules(fmt.Sprint("sale-", i), sale.LimitReads, parse(t, packed))
		}
		require.Len(t, *r.sets.Load(), 3)
	}

	// What is over makes room before the table grows, and for others than those that are not over.
	r := newRig(t, "customer,1000,1,enforce;", func(o *ShieldOptions) { o.KeysMax = 1000 })
	for i := range 10_000 {
		r.now.Add(ms)
		r.charge(t, by("c-"+strconv.Itoa(i)), 1, "customer,1000,1,enforce;")
	}
	require.Less(t, len(r.tables[0].list), 10)
}

func TestShieldOptions(t *testing.T) {
	for _, o := range []ShieldOptions{{KeysMax: -1}, {RuleSetsMax: -1}, {Slack: -1}, {RememberMax: -1}} {
		_, err := NewShield(o)
		require.Error(t, err)
	}
	s, err := NewShield(ShieldOptions{})
	require.NoError(t, err)
	first := s.o.Now()
	require.GreaterOrEqual(t, s.o.Now(), first)
}

// Names in a buffer that is used again are not kept.
func TestShieldKeepsNoBuffers(t *testing.T) {
	r := newRig(t, tenFive, nil)
	buffer := []byte("other-drop customer-1")
	saleID, customer := unsafe.String(&buffer[0], 10), unsafe.String(&buffer[11], 10)
	r.SetRules(saleID, sale.LimitReserve, parse(t, "customer,3600000000,1,enforce;"))
	ticket, d := r.Arrive(&Attempt{Sale: saleID, Group: sale.LimitReserve, Values: [3]string{customer}})
	require.Equal(t, Pass, d)
	copy(buffer, "xxxxxxxxxxxxxxxxxxxxx")
	r.Settle(&ticket, "customer,3600000000,1,enforce;", true)
	a := &Attempt{Sale: "other-drop", Group: sale.LimitReserve, Values: [3]string{"customer-1"}}
	_, d = r.refused(t, a)
	require.Equal(t, Refuse, d)
}

func TestShieldAllocatesNothing(t *testing.T) {
	r := newRig(t, tenFive, nil)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		r.now.Add(1000 * ms)
		ticket, _ := r.Arrive(by("c-1"))
		r.Settle(&ticket, tenFive, true)
		_, _ = r.Alone(by("c-1"))
	}))
}

// Under all calls at once nothing stays in flight, and nothing is lost of what is spent.
func TestShieldConcurrently(t *testing.T) {
	other := "customer,3600000000,100,enforce;ip,1000,5,enforce;"
	spent := "customer,3600000000,100,enforce;ip,1000,6,enforce;device,1000,4,shadow;"
	r := newRig(t, spent, nil)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 2000 {
				a := by("c-" + strconv.Itoa(i%10))
				a.Values[1] = strconv.Itoa(i % 7)
				ticket, d := r.Arrive(a)
				if d == Suspect {
					_, d = r.Recheck(&ticket)
				}
				switch {
				case d == Refuse:
					r.Settle(&ticket, "", false)
				case i%11 == 0:
					r.Refused(&ticket, spent, 1, 1000)
				default:
					r.Settle(&ticket, spent, i%3 == 0)
				}
				_, _ = r.Alone(a)
				if g == 0 {
					r.now.Add(1000)
					r.SetRules("other", sale.LimitReads, parse(t, [...]string{spent, other}[i%2]))
				}
			}
		})
	}
	all.Wait()
	customers := 0
	for i := range r.tables {
		for _, known := range r.tables[i].list {
			require.Zero(t, known.inFlight)
			if known.arrival > 3600_000*ms {
				customers++
			}
		}
	}
	require.Equal(t, 10, customers)
}
