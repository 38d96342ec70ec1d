package ratelimit

import (
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"flashgate/sale"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var headerItem = regexp.MustCompile(`^"(customer|ip|device)";r=([0-9]+);t=([0-9]+)$`)

func dimensionOf(name string) int { return slices.Index(sale.Dimensions[:], name) }

func number(t testing.TB, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	require.NoError(t, err)
	return n
}

// random is repeated by its seed, which is printed with every failure.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("FLASHGATE_TEST_SEED"); text != "" {
		seed = uint64(number(t, text))
	}
	t.Logf("repeat with FLASHGATE_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}
