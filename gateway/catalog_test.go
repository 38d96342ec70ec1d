package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"flashgate/ledger"
	"flashgate/sale"
)

// fakeSales is a ledger of sale versions that counts the questions.
type fakeSales struct {
	mu      sync.Mutex
	sales   map[string]int64
	err     error
	delay   time.Duration
	lookups int
}

func (f *fakeSales) put(id string, version int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sales[id] = version
}

func (f *fakeSales) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeSales) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lookups
}

func (f *fakeSales) Sales(context.Context) (all []sale.Version, err error) {
	f.mu.Lock()
	for id, v := range f.sales {
		all = append(all, sale.Version{Sale: id, Version: v})
	}
	err = f.err
	f.mu.Unlock()
	time.Sleep(f.delay)
	return all, err
}

func (f *fakeSales) LatestVersion(_ context.Context, id string) (sale.Version, error) {
	time.Sleep(f.delay)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lookups++
	v, ok := f.sales[id]
	if f.err == nil && !ok {
		return sale.Version{}, ledger.ErrNotFound
	}
	return sale.Version{Sale: id, Version: v}, f.err
}

func newFakeSales(ids ...string) *fakeSales {
	f := &fakeSales{sales: map[string]int64{}}
	for _, id := range ids {
		f.sales[id] = 1
	}
	return f
}

func TestCatalogLooksBeforeItSaysNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSales("b", "a")
		c := newCatalogOf(f, Options{})
		v, err := c.sale(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, "a", v.Sale)
		defer start(c.run)()
		synctest.Wait()
		require.Len(t, c.list(), 2)
		require.Equal(t, "a", c.list()[0].Sale)
		_, err = c.sale(t.Context(), "new")
		require.ErrorIs(t, err, ledger.ErrNotFound)
		f.put("new", 1)
		_, err = c.sale(t.Context(), "new")
		require.ErrorIs(t, err, ledger.ErrNotFound, "remembered for a moment")
		_, err = c.refresh(t.Context(), "new")
		require.NoError(t, err, "but not by the gateway that made it")
		f.put("other", 1)
		time.Sleep(1001 * time.Millisecond)
		_, err = c.sale(t.Context(), "other")
		require.NoError(t, err)
	})
}

func TestCatalogFollowsChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSales("a")
		c := newCatalogOf(f, Options{})
		defer start(c.run)()
		synctest.Wait()
		f.put("a", 2)
		time.Sleep(time.Second + time.Millisecond)
		v, _ := c.sale(t.Context(), "a")
		require.EqualValues(t, 2, v.Version)
		f.put("a", 3)
		v, err := c.refresh(t.Context(), "a")
		require.NoError(t, err)
		require.EqualValues(t, 3, v.Version)
		f.put("a", 4)
		c.forget("a")
		v, _ = c.sale(t.Context(), "a")
		require.EqualValues(t, 4, v.Version)
	})
}

// Guards against a slow read of all sales that puts an older version over the one just written.
func TestCatalogNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSales("a")
		f.delay = 100 * time.Millisecond
		c := newCatalogOf(f, Options{CatalogRefresh: time.Hour})
		defer start(c.run)()
		synctest.Wait() // The read of all has its rows and is on its way back.
		f.put("a", 2)
		v, err := c.refresh(t.Context(), "a")
		require.NoError(t, err)
		require.EqualValues(t, 2, v.Version)
		time.Sleep(time.Second)
		v, _ = c.sale(t.Context(), "a")
		require.EqualValues(t, 2, v.Version)
	})
}

func TestCatalogOutlivesTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSales("a")
		c := newCatalogOf(f, Options{})
		defer start(c.run)()
		synctest.Wait()
		away := errors.New("away")
		f.fail(away)
		time.Sleep(time.Minute)
		_, err := c.sale(t.Context(), "a")
		require.NoError(t, err)
		_, err = c.sale(t.Context(), "b")
		require.ErrorIs(t, err, errUnavailable)
		require.ErrorIs(t, err, away)
		f.fail(nil)
		_, err = c.sale(t.Context(), "b")
		require.ErrorIs(t, err, ledger.ErrNotFound, "a failed look is not remembered")
	})
}

func TestCatalogBoundsAFloodOfUnknownSales(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSales()
		c := newCatalogOf(f, Options{MissMax: 50})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				_, err := c.sale(t.Context(), "same")
				assert.ErrorIs(t, err, ledger.ErrNotFound)
			})
		}
		wg.Wait()
		require.Equal(t, 1, f.asked(), "one question for all that ask for one id")
		begun := time.Now()
		for i := range 10_000 {
			_, err := c.sale(t.Context(), fmt.Sprintf("flood-%d", i))
			require.Error(t, err)
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, f.asked(), 100*int(time.Since(begun)/time.Second+1)+1)
		require.LessOrEqual(t, len(c.misses), 50)
		require.Empty(t, c.looking)
	})
}

func TestCatalogHonoursTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSales("a")
		f.delay = time.Second
		c := newCatalogOf(f, Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := c.sale(ctx, "a")
		require.ErrorIs(t, err, errUnavailable)
		v, err := c.sale(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, "a", v.Sale)
	})
}
