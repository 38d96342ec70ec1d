package gateway

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/lua"
	"flashgate/sale"
)

// solve does the work of a challenge and returns the header that answers it.
func solve(t *testing.T, doc map[string]any) string {
	t.Helper()
	c := doc["challenge"].(map[string]any)
	require.Equal(t, "pow", c["provider"])
	require.Equal(t, "SHA-256", c["algorithm"])
	token := c["token"].(string)
	for nonce := 0; ; nonce++ {
		sum := sha256.Sum256([]byte(token + "." + strconv.Itoa(nonce)))
		zeros := 0
		for _, b := range sum {
			zeros += bits.LeadingZeros8(b)
			if b != 0 {
				break
			}
		}
		if float64(zeros) >= c["difficulty"].(float64) {
			return fmt.Sprintf("pow %s %d", token, nonce)
		}
	}
}

func TestChallenge(t *testing.T) { onBoth(t, challenges) }

func challenges(t *testing.T, store *lua.Store) {
	r := newRig(t, store, func(d *Deps) { d.Options.Difficulty = 8 })
	asked := func(c *sale.Config) { c.Challenge = &sale.Challenge{Mode: sale.ChallengeAlways} }
	r.putSale("asked", asked)
	r.putSale("asked-too", asked)
	doc := r.call("PUT", "/v1/admin/sales/keyless", saleJSON("keyless", func(c *sale.Config) {
		c.Challenge = &sale.Challenge{
			Mode: sale.ChallengeAlways, Providers: []sale.ChallengeProvider{sale.ProofOfWork, sale.Turnstile},
		}
	})).problem(t, codeInvalidRequest)
	require.Equal(t, []string{"/challenge/providers/1"}, pointers(doc))
	need := func(res reply) map[string]any {
		t.Helper()
		return res.problem(t, codeChallengeRequired)
	}
	first := need(r.sock("asked", "proof-0001", "ada", ""))
	answer := solve(t, first)
	require.Zero(t, r.level("asked", "SOCK", "main").Held, "nothing is taken without proof")

	// Nothing but the right answer of the right customer in the right sale, and that once.
	need(r.sock("asked", "proof-0001", "bob", "", headerResponse, answer))
	need(r.sock("asked-too", "proof-0001", "ada", "", headerResponse, answer))
	need(r.sock("asked", "proof-0001", "ada", "", headerResponse, answer+"0"))
	need(r.sock("asked", "proof-0001", "ada", "", headerResponse, "pow nonsense"))
	solved := r.sock("asked", "proof-0001", "ada", "", headerResponse, answer)
	solved.want(t, http.StatusCreated)
	clearance := solved.Header.Get(headerClearance)
	require.NotEmpty(t, clearance)
	need(r.sock("asked", "proof-0002", "ada", "", headerResponse, answer))

	r.sock("asked", "proof-0002", "ada", "", headerClearance, clearance).want(t, http.StatusCreated)
	need(r.sock("asked", "proof-0003", "bob", "", headerClearance, clearance))
	need(r.sock("asked-too", "proof-0003", "ada", "", headerClearance, clearance))
	need(r.sock("asked", "proof-0003", "ada", "", headerClearance, clearance[:len(clearance)-1]))

	// Who holds it already is answered again, proof or not.
	again := r.sock("asked", "proof-0001", "ada", "")
	again.want(t, http.StatusCreated)
	require.Equal(t, "true", again.Header.Get("Idempotent-Replayed"))
	require.Positive(t, r.counter(`flashgate_challenges_total{detail="pow",result="asked",sale="asked"}`))
	require.Equal(t, 1, r.counter(`flashgate_challenges_total{detail="pow",result="solved",sale="asked"}`))
	require.Equal(t, 1, r.counter(`flashgate_challenges_total{detail="used",result="failed",sale="asked"}`))
	require.Equal(t, 1, r.counter(`flashgate_challenges_total{detail="other_customer",result="failed",sale="asked"}`))
}

// Only the suspicious are asked: here four customers behind one device.
func TestChallengeOfTheSuspicious(t *testing.T) {
	r := newRig(t, mini(t), func(d *Deps) { d.Options.Difficulty = 4 })
	r.putSale("doubt", func(c *sale.Config) { c.Challenge = &sale.Challenge{Mode: sale.ChallengeSuspicious} })
	device := `,"device":"one-phone"`
	for i := range 3 {
		r.sock("doubt", fmt.Sprintf("doubt-%04d", i), fmt.Sprintf("c-%d", i), device).want(t, http.StatusCreated)
	}
	doc := r.sock("doubt", "doubt-0004", "c-4", device).problem(t, codeChallengeRequired)
	require.EqualValues(t, 6, doc["challenge"].(map[string]any)["difficulty"], "harder with each reason")
	r.sock("doubt", "doubt-0005", "c-5", `,"device":"another"`).want(t, http.StatusCreated)
	r.sock("doubt", "doubt-0004", "c-4", device, headerResponse, solve(t, doc)).want(t, http.StatusCreated)
	require.Positive(t, r.counter(`flashgate_suspicions_total{reason="shared_device",sale="doubt"}`))
}

// Two gateways share keys and memory: what was cleared at one is cleared at the other, and an answer
// counts once in all.
func TestChallengeAtTwoGateways(t *testing.T) {
	store := mini(t)
	options := func(d *Deps) { d.Options.Difficulty = 8 }
	one := newRig(t, store, options)
	two := newRig(t, store, func(d *Deps) {
		options(d)
		d.Ledger = one.ledger
	})
	one.putSale("pair", func(c *sale.Config) { c.Challenge = &sale.Challenge{Mode: sale.ChallengeAlways} })
	require.Eventually(t, func() bool { return two.g.sealer() != nil }, 5*time.Second, 5*time.Millisecond)
	answer := solve(t, one.sock("pair", "pair-00001", "ada", "").problem(t, codeChallengeRequired))
	solved := two.sock("pair", "pair-00001", "ada", "", headerResponse, answer)
	solved.want(t, http.StatusCreated)
	one.sock("pair", "pair-00002", "ada", "", headerResponse, answer).problem(t, codeChallengeRequired)
	one.sock("pair", "pair-00002", "ada", "", headerClearance, solved.Header.Get(headerClearance)).want(t, http.StatusCreated)
}

// The page that solves challenges needs no credential, and no more than its own files.
func TestChallengePage(t *testing.T) {
	r := newRig(t, mini(t), nil)
	page := r.call("GET", "/docs/challenge", "", "Authorization", "")
	require.Equal(t, http.StatusOK, page.StatusCode)
	require.Contains(t, string(page.text), `src="challenge.js"`)
	require.Contains(t, page.Header.Get("Content-Security-Policy"), "script-src 'self'")
	require.Contains(t, string(r.call("GET", "/docs/challenge.js", "", "Authorization", "").text), "flashgateChallenge")
	r.get("/docs/page.txt").problem(t, codeNotFound)
}
