package loadtest

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"flashgate/configs"
	"flashgate/sale"
)

// Scenario is a load as a file describes it: what is sold, who comes when, and what goes wrong meanwhile.
type Scenario struct {
	Scenario string `json:"scenario"`
	About    string `json:"about,omitempty"`
	// Sale is made for the run, under its id and a suffix of the run's own.
	Sale     sale.Config    `json:"sale"`
	Arrivals Schedule       `json:"arrivals"`
	Shoppers Mix            `json:"shoppers"`
	Tiers    map[string]int `json:"tiers,omitempty"` // weights
	Seed     uint64         `json:"seed,omitempty"`
	Bounds   Bounds         `json:"bounds,omitzero"`
	// Freezes stop Redis for a while; with --self only.
	Freezes []Freeze `json:"freezes,omitempty"`
}

// Bounds limit the crowd; 0 is the default of Options.
type Bounds struct {
	Connections     int     `json:"connections,omitempty"`
	InFlight        int     `json:"in_flight,omitempty"`
	TimeoutMs       int     `json:"timeout_ms,omitempty"`
	Tries           int     `json:"tries,omitempty"`
	StockTries      int     `json:"stock_tries,omitempty"`
	PatienceSeconds float64 `json:"patience_seconds,omitempty"`
	StaySeconds     float64 `json:"stay_seconds,omitempty"`
}

// Freeze is a time in which Redis does not answer and loses nothing.
type Freeze struct {
	AtSeconds float64 `json:"at_seconds"`
	Seconds   float64 `json:"seconds"`
}

//go:embed scenarios/*.yaml
var scenarioFiles embed.FS

// Scenarios names those that are built in.
func Scenarios() (names []string) {
	files, err := scenarioFiles.ReadDir("scenarios")
	if err != nil {
		panic(err) // They are embedded.
	}
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f.Name(), ".yaml"))
	}
	return names
}

// LoadScenario reads a scenario that is built in, or a file. What is wrong with its content is a
// *configs.Error.
func LoadScenario(name string) (*Scenario, error) {
	s := &Scenario{}
	if slices.Contains(Scenarios(), name) {
		file := "scenarios/" + name + ".yaml"
		b, err := scenarioFiles.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return s, configs.DecodeYAML(file, b, s)
	}
	if _, err := os.Stat(filepath.Clean(name)); err != nil {
		return nil, fmt.Errorf("there is no scenario %.80q, and no such file; there are %s", name,
			strings.Join(Scenarios(), ", "))
	}
	return s, configs.LoadYAML(name, s)
}

// Validate says everything that is wrong with a scenario.
func (s *Scenario) Validate() (wrong []sale.FieldError) {
	add := func(bad bool, pointer, detail string, args ...any) {
		if bad {
			wrong = append(wrong, sale.FieldError{Pointer: pointer, Detail: fmt.Sprintf(detail, args...)})
		}
	}
	add(s.Scenario == "", "/scenario", "is required: a name for reports")
	for _, e := range s.Sale.Validate() {
		wrong = append(wrong, sale.FieldError{Pointer: "/sale" + e.Pointer, Detail: e.Detail})
	}
	schedule := s.Arrivals.check("/arrivals")
	wrong = append(wrong, schedule...)
	add(s.Shoppers.total() <= 0, "/shoppers", "must give a weight above 0 to at least one kind")
	for _, w := range s.Shoppers.weights() {
		add(w.weight < 0, "/shoppers", "%s: a weight must not be negative", w.kind)
	}
	for tier, weight := range s.Tiers {
		_, known := s.Sale.Caps.Tiers[tier]
		add(!known, "/tiers/"+tier, "is no tier of the sale")
		add(weight < 0, "/tiers/"+tier, "must not be negative")
	}
	b := &s.Bounds
	add(b.Connections < 0 || b.Connections > maxConnections, "/bounds/connections", "must be 0 to %d", maxConnections)
	add(b.InFlight < 0 || b.TimeoutMs < 0 || b.Tries < 0 || b.StockTries < 0 || b.PatienceSeconds < 0 ||
		b.PatienceSeconds > maxSeconds || b.StaySeconds < 0 || b.StaySeconds > maxSeconds,
		"/bounds", "must not be negative, nor times longer than an hour")
	last := 0.0
	for i, f := range s.Freezes {
		at := fmt.Sprintf("/freezes/%d", i)
		add(f.Seconds <= 0 || f.Seconds > 60, at+"/seconds", "must be more than 0 and at most 60")
		add(f.AtSeconds < last, at+"/at_seconds", "must not be before the end of the one before it")
		add(len(schedule) == 0 && f.AtSeconds >= s.Arrivals.Length().Seconds(), at+"/at_seconds",
			"must be before the last arrival, at %g s", s.Arrivals.Length().Seconds())
		last = f.AtSeconds + f.Seconds
	}
	return wrong
}

// Options are those of a crowd that does what the scenario says.
func (s *Scenario) Options() Options {
	return Options{
		Sale: s.Sale, Schedule: s.Arrivals, Mix: s.Shoppers, Tiers: s.Tiers, Seed: s.Seed,
		Connections: s.Bounds.Connections, InFlight: s.Bounds.InFlight,
		Timeout: time.Duration(s.Bounds.TimeoutMs) * time.Millisecond,
		Tries:   s.Bounds.Tries, StockTries: s.Bounds.StockTries,
		Patience: seconds(s.Bounds.PatienceSeconds), Stay: seconds(s.Bounds.StaySeconds),
	}
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
