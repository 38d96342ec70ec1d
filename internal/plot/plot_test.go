package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAChartIsDrawn(t *testing.T) {
	c := Chart{Title: "a < b", X: "holds", Y: "us", Aim: 12, Lines: []Line{
		{"batch", []Point{{1000, 9, 10, 11}, {1_000_000, 10, 10.5, 12}}},
		{"single", []Point{{1000, 40, 40, 40}, {1_000_000, 42, 42, 42}}},
	}}
	svg := c.SVG()
	require.Equal(t, svg, c.SVG())
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err, svg)
	}
	require.Equal(t, 4, strings.Count(svg, "<circle"))
	require.Equal(t, 2, strings.Count(svg, "<polyline"))
	for _, want := range []string{"a &lt; b", ">1k<", ">1M<", ">aim 12<", ">single<"} {
		require.Contains(t, svg, want)
	}
	// What is larger is drawn higher.
	d := drawing{Chart: c}
	d.measure()
	require.Less(t, d.y(40), d.y(10))
	require.Less(t, d.x(1000), d.x(1_000_000))
	require.Greater(t, d.y(42), top-1)
}

func TestAnEmptyChartIsAChart(t *testing.T) {
	require.Contains(t, Chart{Title: "nothing"}.SVG(), "</svg>")
	require.Contains(t, Chart{Lines: []Line{{"one", []Point{{1, 2, 2, 2}}}}}.SVG(), "<circle")
}

func TestNumbersAreShort(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.25: "0.25", 12: "12", 1000: "1k", 1500: "1.5k", 1e6: "1M"} {
		require.Equal(t, want, number(v))
	}
}
