//go:build unix

package drill

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"

	"flashgate/loadtest"
)

//go:embed report.html
var reportPage string

var report = template.Must(template.New("report").Funcs(template.FuncMap{
	"style": loadtest.Style, "timeline": timeline,
	"about": func(name string) string { return faultNamed(name).about },
	"word":  func(v loadtest.Verdict) string { return strings.ToLower(verdictWord(v)) },
}).Parse(reportPage))

// WriteReport writes a page that needs nothing but itself.
func (res *Result) WriteReport(w io.Writer) error { return report.Execute(w, res) }

// The timeline is drawn in these units.
const (
	barWidth   = 6
	lineHeight = 12
	barsHeight = 100
	endOfAxis  = 16
)

// timeline draws the calls of a round, and over them what broke. All of it is numbers and names of
// faults, so nothing needs escaping.
func timeline(r Round) template.HTML {
	var b strings.Builder
	most, top := 1, lineHeight*(len(r.Strikes)+1)
	for _, p := range r.Points {
		most = max(most, p.Accepted+p.Refused+p.Unavailable)
	}
	scale := func(n int) float64 { return float64(n) * barsHeight / float64(most) }
	height := top + barsHeight + endOfAxis
	width := max(1, len(r.Points)) * barWidth
	fmt.Fprintf(&b, `<svg width="%d" height="%d" viewBox="0 0 %d %d" role="img">`, width, height, width, height)
	for i, s := range r.Strikes {
		x, width := at(s.BeganMs), max(2, at(s.HealedMs)-at(s.BeganMs))
		fmt.Fprintf(&b, `<rect class="strike" x="%.1f" y="%d" width="%.1f" height="%d"/>`,
			x, lineHeight*i, width, top+barsHeight-lineHeight*i)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`, x+3, lineHeight*(i+1)-2, s.Fault)
	}
	for i, p := range r.Points {
		y := float64(top + barsHeight)
		for _, part := range []struct {
			class string
			n     int
		}{{"accepted", p.Accepted}, {"refused", p.Refused}, {"unavailable", p.Unavailable}} {
			if part.n == 0 {
				continue
			}
			y -= scale(part.n)
			fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%.1f" width="%d" height="%.1f"/>`,
				part.class, i*barWidth, y, barWidth-1, scale(part.n))
		}
		if second := 1000 / PointMs; i%second == 0 {
			fmt.Fprintf(&b, `<text class="axis" x="%d" y="%d">%d s</text>`, i*barWidth, height-4, i/second)
		}
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) //nolint:gosec // see above
}

// at is the place of a moment.
func at(ms int64) float64 { return float64(ms) / PointMs * barWidth }
