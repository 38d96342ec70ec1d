// Package plot draws small line charts as SVG, for figures that are kept in docs/: text that git can compare, the
// same for the same numbers.
package plot

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Chart is one drawing. X is logarithmic; each of its values that occurs has a mark.
type Chart struct {
	Title, X, Y string
	Lines       []Line
	// Aim is drawn as a broken line where it is above 0.
	Aim float64
}

// Line is one measured thing.
type Line struct {
	Name   string
	Points []Point
}

// Point is a value and how far its repetitions spread.
type Point struct{ X, Low, Y, High float64 }

const (
	width, height = 640.0, 280.0
	left, right   = 56.0, 16.0
	top, foot     = 36.0, 44.0
)

// colours are told apart in grey and by most who see some colours only (Okabe and Ito).
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7"}

// SVG draws the chart.
func (c Chart) SVG() string {
	d := drawing{Chart: c}
	d.measure()
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" `+
		`font-size="12">`+"\n", width, height)
	d.printf(`<rect width="%.0f" height="%.0f" fill="#fff"/>`+"\n", width, height)
	d.text(left, 18, "start", `font-weight="bold"`, c.Title)
	d.axes()
	if c.Aim > 0 {
		d.printf(`<line x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f" stroke="#888" stroke-dasharray="6 4"/>`+"\n",
			left, width-right, d.y(c.Aim), d.y(c.Aim))
		d.text(left+4, d.y(c.Aim)-4, "start", `fill="#666"`, "aim "+number(c.Aim))
	}
	for i, l := range c.Lines {
		d.line(l, colours[i%len(colours)], i)
	}
	d.printf("</svg>\n")
	return d.out.String()
}

type drawing struct {
	Chart
	out         strings.Builder
	first, last float64 // of x
	most        float64 // of y
	marks       []float64
}

func (d *drawing) printf(format string, args ...any) { fmt.Fprintf(&d.out, format, args...) }

func (d *drawing) text(x, y float64, anchor, more, text string) {
	d.printf(`<text x="%.1f" y="%.1f" text-anchor="%s" %s>%s</text>`+"\n", x, y, anchor, more, html.EscapeString(text))
}

func (d *drawing) measure() {
	d.first, d.last, d.most = math.Inf(1), math.Inf(-1), d.Aim
	seen := map[float64]bool{}
	for _, l := range d.Lines {
		for _, p := range l.Points {
			d.first, d.last, d.most = min(d.first, p.X), max(d.last, p.X), max(d.most, p.Y, p.High)
			if !seen[p.X] {
				seen[p.X] = true
				d.marks = append(d.marks, p.X)
			}
		}
	}
	if len(d.marks) == 0 {
		d.first, d.last = 1, 1
	}
	d.most = max(d.most*1.1, 1e-9)
}

func (d *drawing) x(v float64) float64 {
	if d.last <= d.first {
		return left + (width-left-right)/2
	}
	return left + 20 + math.Log(v/d.first)/math.Log(d.last/d.first)*(width-left-right-40)
}

func (d *drawing) y(v float64) float64 { return height - foot - v/d.most*(height-foot-top) }

func (d *drawing) axes() {
	step := math.Pow(10, math.Floor(math.Log10(d.most)))
	for d.most/step < 3 {
		step /= 2
	}
	for v := 0.0; v <= d.most; v += step {
		d.printf(`<line x1="%.0f" x2="%.0f" y1="%.1f" y2="%.1f" stroke="#e4e4e4"/>`+"\n",
			left, width-right, d.y(v), d.y(v))
		d.text(left-6, d.y(v)+4, "end", `fill="#444"`, number(v))
	}
	for _, v := range d.marks {
		d.text(d.x(v), height-foot+16, "middle", `fill="#444"`, number(v))
	}
	d.text(left+(width-left-right)/2, height-8, "middle", `fill="#444"`, d.X)
	d.text(width-right, 18, "end", `fill="#444"`, d.Y)
}

func (d *drawing) line(l Line, colour string, at int) {
	d.printf(`<polyline fill="none" stroke="%s" stroke-width="2" points="`, colour)
	for i, p := range l.Points {
		if i > 0 {
			d.printf(" ")
		}
		d.printf("%.1f,%.1f", d.x(p.X), d.y(p.Y))
	}
	d.printf("\"/>\n")
	for _, p := range l.Points {
		if p.High > p.Low {
			d.printf(`<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s"/>`+"\n",
				d.x(p.X), d.x(p.X), d.y(p.Low), d.y(p.High), colour)
		}
		d.printf(`<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", d.x(p.X), d.y(p.Y), colour)
	}
	d.text(left+8+150*float64(at), top+4, "start", `fill="`+colour+`"`, l.Name)
}

// number writes thousands and millions as people do.
func number(v float64) string {
	for _, unit := range []struct {
		of   float64
		word string
	}{{1e6, "M"}, {1e3, "k"}} {
		if v >= unit.of {
			return strconv.FormatFloat(v/unit.of, 'g', 4, 64) + unit.word
		}
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
