package loadtest

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
)

//go:embed style.css
var style string

// Style is the look of every report.
func Style() template.CSS { return template.CSS(style) } //nolint:gosec // our own file

//go:embed report.html
var pageText string

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"style": Style, "calls": callsChart, "latencies": latencyChart, "stock": stockChart,
	"percent": func(share float64) float64 { return 100 * share },
	"meaning": OutcomeCount.meaning, "freeze": LossAt.freeze, "word": verdictWord,
}).Parse(pageText))

// WriteReport writes a page that needs nothing but itself.
func (r Result) WriteReport(w io.Writer) error { return page.Execute(w, r) }

func verdictWord(v Verdict) string {
	switch {
	case !v.Kept:
		return "broken"
	case !v.Tried:
		return "untried"
	default:
		return "kept"
	}
}

// A chart is drawn in these units. All that is written into it are numbers and words of this package, so
// nothing needs escaping.
const (
	plotWidth  = 900.0
	plotHeight = 180.0
	plotLeft   = 60.0
	plotFoot   = 20.0
)

// chart is one drawing; x runs over seconds from 0 to last.
type chart struct {
	strings.Builder
	last, top float64
	log       bool
}

func newChart(last, top float64, log bool) *chart {
	c := &chart{last: max(last, 1), top: max(top, 1), log: log}
	fmt.Fprintf(c, `<svg viewBox="0 0 %.0f %.0f" role="img">`, plotLeft+plotWidth, plotHeight+plotFoot)
	for _, mark := range c.marks() {
		fmt.Fprintf(c, `<line class="grid" x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f"/>`,
			plotLeft, plotLeft+plotWidth, c.y(mark), c.y(mark))
		fmt.Fprintf(c, `<text class="axis" x="2" y="%.1f">%g</text>`, c.y(mark)+4, mark)
	}
	step := math.Ceil(c.last / 12)
	for s := 0.0; s <= c.last; s += step {
		fmt.Fprintf(c, `<text class="axis" x="%.1f" y="%.0f">%g s</text>`, c.x(s), plotHeight+plotFoot-5, s)
	}
	return c
}

// marks are the values that have a line.
func (c *chart) marks() (all []float64) {
	if c.log {
		for v := 1.0; v <= c.top; v *= 10 {
			all = append(all, v)
		}
		return all
	}
	step := math.Pow(10, math.Floor(math.Log10(c.top)))
	for c.top/step < 3 {
		step /= 2
	}
	for v := 0.0; v <= c.top; v += step {
		all = append(all, v)
	}
	return all
}

func (c *chart) x(seconds float64) float64 { return plotLeft + seconds/c.last*plotWidth }

func (c *chart) y(v float64) float64 {
	part := v / c.top
	if c.log { // from 0.1 on
		part = (math.Log10(max(v, 0.1)) + 1) / (math.Log10(max(c.top, 1)) + 1)
	}
	return plotHeight - part*(plotHeight-8)
}

// line draws one value a point.
func (c *chart) line(class string, n int, at func(i int) (x, y float64)) {
	fmt.Fprintf(c, `<polyline class="line %s" points="`, class)
	for i := range n {
		x, y := at(i)
		fmt.Fprintf(c, "%.1f,%.1f ", c.x(x), c.y(y))
	}
	c.WriteString(`"/>`)
}

// faults shades when something was done to the server.
func (c *chart) faults(r Result) {
	for _, f := range append(append([]LossAt{}, r.Losses...), r.Freezes...) {
		from, to := float64(f.AtMs)/1000, float64(max(f.EndMs, f.AtMs))/1000
		fmt.Fprintf(c, `<rect class="strike" x="%.1f" y="0" width="%.1f" height="%.0f"/>`,
			c.x(from), max(2, c.x(to)-c.x(from)), plotHeight)
	}
}

func (c *chart) end() template.HTML {
	c.WriteString("</svg>")
	return template.HTML(c.String()) //nolint:gosec // see above
}

func callsChart(r Result) template.HTML {
	most := 0
	for _, s := range r.BySecond {
		most = max(most, s.Calls())
	}
	c := newChart(float64(len(r.BySecond)), float64(most), false)
	c.faults(r)
	for i, s := range r.BySecond {
		below := 0
		for _, part := range []struct {
			class string
			n     int
		}{
			{"accepted", s.Accepted},
			{"refused", s.Refused},
			{"limited", s.Limited},
			{"unavailable", s.Unavailable},
			{"unanswered", s.Unanswered},
		} {
			if part.n == 0 {
				continue
			}
			top := c.y(float64(below + part.n))
			fmt.Fprintf(c, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, part.class,
				c.x(float64(i)), top, max(1, plotWidth/c.last-1), c.y(float64(below))-top)
			below += part.n
		}
	}
	return c.end()
}

func latencyChart(r Result) template.HTML {
	most := 1.0
	for _, s := range r.BySecond {
		most = max(most, s.Max)
	}
	c := newChart(float64(len(r.BySecond)), most, true)
	c.faults(r)
	for class, of := range map[string]func(Second) float64{
		"p50": func(s Second) float64 { return s.P50 }, "p99": func(s Second) float64 { return s.P99 },
		"max": func(s Second) float64 { return s.Max },
	} {
		c.line(class, len(r.BySecond), func(i int) (x, y float64) {
			return float64(r.BySecond[i].At) + 0.5, of(r.BySecond[i])
		})
	}
	return c.end()
}

func stockChart(r Result) template.HTML {
	most, last := int64(0), 0.0
	for _, p := range r.Stock {
		most, last = max(most, p.Available, p.Held, p.Sold), float64(p.AtMs)/1000
	}
	c := newChart(last, float64(most), false)
	c.faults(r)
	for class, of := range map[string]func(StockPoint) int64{
		"available": func(p StockPoint) int64 { return p.Available },
		"held":      func(p StockPoint) int64 { return p.Held },
		"sold":      func(p StockPoint) int64 { return p.Sold },
	} {
		c.line(class, len(r.Stock), func(i int) (x, y float64) {
			return float64(r.Stock[i].AtMs) / 1000, float64(of(r.Stock[i]))
		})
	}
	return c.end()
}
