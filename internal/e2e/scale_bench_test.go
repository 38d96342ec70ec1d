package e2e

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"flashgate/internal/plot"
	"flashgate/internal/redistest"
)

// The dimensions of BenchmarkScale. Each measures its levels in turn, round by round, so that a machine that
// grows slower meanwhile does so for all of them.
var dimensions = []struct {
	name, title string
	levels      []int
	aim         float64 // of the last level to the first, in cost; 0 for none
	measure     func(b *testing.B, f *figures)
}{
	{"holds", "live holds of a sale", []int{1_000, 10_000, 100_000, 1_000_000}, 1.2, scaleHolds},
	{"skus", "SKUs of a sale, of which each reserve takes any", []int{1, 10, 100, 1_000, 10_000}, 1.2, scaleSKUs},
	{"sales", "sales over a Redis Cluster of four nodes", []int{1, 10, 100}, 0, scaleSales},
	{"gateways", "gateways that share 128 callers", []int{1, 2, 3, 4}, 0, scaleGateways},
}

const redisMetric = "redis-us/reserve"

// BenchmarkScale measures what a reserve costs the more there is of everything: see dimensions. It takes minutes
// and as many servers, so it runs only when BENCH_SCALE names dimensions, or says all, as make
// bench-scale does. A line for benchstat is printed for each level and round; with BENCH_OUT the
// figures go there as CSV and SVG, and the medians as a table of Markdown.
func BenchmarkScale(b *testing.B) {
	want := os.Getenv("BENCH_SCALE")
	if want == "" {
		b.Skip("takes minutes: make bench-scale")
	}
	for _, d := range dimensions {
		if want != "all" && !slices.Contains(strings.Split(want, ","), d.name) {
			continue
		}
		b.Run(d.name, func(b *testing.B) {
			f := &figures{b: b, name: d.name, levels: d.levels, values: map[string]map[int][]float64{}}
			for range b.N { // once: see the Makefile
				d.measure(b, f)
			}
			b.ReportMetric(0, "ns/op")
			first, last := f.median(redisMetric, d.levels[0]), f.median(redisMetric, d.levels[len(d.levels)-1])
			b.ReportMetric(last/first, "last/first")
			if out := os.Getenv("BENCH_OUT"); out != "" {
				f.write(out, d.title, d.aim*first)
			}
		})
	}
}

// figures are what one dimension came to: metric by level, a value a round.
type figures struct {
	b       *testing.B
	name    string
	levels  []int
	metrics []string
	values  map[string]map[int][]float64
}

// add notes the metrics of one round of a level, and prints them as the testing package prints a result. The first
// is what the plot shows.
func (f *figures) add(level, reserves int, metrics ...metric) {
	var line strings.Builder
	for _, m := range metrics {
		if f.values[m.unit] == nil {
			f.values[m.unit] = map[int][]float64{}
			f.metrics = append(f.metrics, m.unit)
		}
		f.values[m.unit][level] = append(f.values[m.unit][level], m.value)
		fmt.Fprintf(&line, "\t%10.4g %s", m.value, m.unit)
	}
	fmt.Printf("BenchmarkScale/%s=%d-%d\t%8d%s\n", f.name, level, runtime.GOMAXPROCS(0), reserves, line.String())
}

type metric struct {
	value float64
	unit  string
}

func (f *figures) median(unit string, level int) float64 { return f.quantile(unit, level, 0.5) }

func (f *figures) quantile(unit string, level int, q float64) float64 {
	all := slices.Sorted(slices.Values(f.values[unit][level]))
	require.NotEmpty(f.b, all, "no figures of %s at %d", unit, level)
	return all[int(q*float64(len(all)-1)+0.5)]
}

// write keeps the figures of a dimension: medians and quartiles.
func (f *figures) write(dir, title string, aim float64) {
	f.b.Helper()
	require.NoError(f.b, os.MkdirAll(dir, 0o755))
	rows := [][]string{{f.name, "metric", "median", "lower quartile", "upper quartile", "rounds"}}
	var table strings.Builder
	fmt.Fprintf(&table, "\n| %s | %s |\n|---|%s\n", f.name, strings.Join(f.metrics, " | "),
		strings.Repeat("---|", len(f.metrics)))
	for _, level := range f.levels {
		fmt.Fprintf(&table, "| %d |", level)
		for _, unit := range f.metrics {
			low, mid, high := f.quantile(unit, level, 0.25), f.median(unit, level), f.quantile(unit, level, 0.75)
			rows = append(rows, []string{
				strconv.Itoa(level), unit, short(mid), short(low), short(high), strconv.Itoa(len(f.values[unit][level])),
			})
			fmt.Fprintf(&table, " %s |", short(mid))
		}
		table.WriteByte('\n')
	}
	fmt.Printf("%s, %s, %s\n%s\n", machine(), runtime.Version(), time.Now().UTC().Format(time.DateOnly), table.String())
	file, err := os.Create(filepath.Join(dir, "scale-"+f.name+".csv"))
	require.NoError(f.b, err)
	w := csv.NewWriter(file)
	require.NoError(f.b, w.WriteAll(rows))
	require.NoError(f.b, file.Close())

	line := plot.Line{Name: redisMetric}
	for _, level := range f.levels {
		line.Points = append(line.Points, plot.Point{
			X: float64(level), Low: f.quantile(redisMetric, level, 0.25), Y: f.median(redisMetric, level),
			High: f.quantile(redisMetric, level, 0.75),
		})
	}
	svg := plot.Chart{
		Title: "CPU time of Redis for a reserve, in us", X: title, Lines: []plot.Line{line}, Aim: aim,
	}.SVG()
	require.NoError(f.b, os.WriteFile(filepath.Join(dir, "scale-"+f.name+".svg"), []byte(svg), 0o644))
}

func short(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// machine names the processor, where the system tells.
func machine() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return fmt.Sprintf("%d cores of %s", runtime.NumCPU(), strings.TrimSpace(model))
		}
	}
	return cmp.Or(fmt.Sprintf("%d cores", runtime.NumCPU()), runtime.GOARCH)
}

// redisCPU is the CPU time that the main threads of all nodes have used, in seconds, and each node's.
func redisCPU(b *testing.B, nodes *redistest.Nodes) (sum float64, each []float64) {
	b.Helper()
	for _, node := range nodes.Direct() {
		each = append(each, redistest.CPU(b, node))
		sum += each[len(each)-1]
	}
	return sum, each
}
