package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"flashgate/lua"
)

// Those who ask for stock together share a read, each gets what they asked for, and everybody sees what was
// done before they asked.
func TestStockIsReadForAllWhoAsk(t *testing.T) {
	onBoth(t, func(t *testing.T, store *lua.Store) {
		r := newRig(t, store, nil)
		r.putSale("looked-at", nil)
		items := func(query string) []string {
			var got struct{ Items []struct{ SKU string } }
			res, err := r.try("GET", "/v1/availability?sale=looked-at"+query, "")
			if !assert.NoError(t, err) || !assert.Equal(t, http.StatusOK, res.StatusCode, "%s", res.text) {
				return nil
			}
			assert.NoError(t, json.Unmarshal(res.text, &got))
			skus := []string{}
			for _, i := range got.Items {
				skus = append(skus, i.SKU)
			}
			return skus
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { assert.Equal(t, []string{"AIR-42", "SOCK"}, items("")) })
			wg.Go(func() { assert.Equal(t, []string{"SOCK"}, items("&sku=SOCK")) })
			wg.Go(func() { assert.Equal(t, []string{"AIR-42"}, items("&sku=AIR-42")) })
			wg.Go(func() {
				res, err := r.try("GET", "/v1/availability?sale=looked-at&sku=NONE", "")
				assert.NoError(t, err)
				assert.Equal(t, http.StatusNotFound, res.StatusCode)
			})
		}
		wg.Wait()
		for n := range 4 {
			r.reserve("looked-at", fmt.Sprint("seen-000", n))
			require.EqualValues(t, n+1, r.level("looked-at", "AIR-42", "berlin").Held)
		}
	})
}
