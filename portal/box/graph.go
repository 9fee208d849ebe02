package box

import (
	"fmt"
	"strings"
	"time"
)

// The box of a graph in its own units; the page scales it.
const (
	graphWidth  = 600
	graphHeight = 120
	graphPoints = 200 // that a line has at most
)

// Graph is one line of numbers over time, ready to be drawn as SVG.
type Graph struct {
	Path     string // of the line: commands of an SVG path
	Area     string // the same, closed to the ground
	Low      int
	High     int
	Now      int
	Top      int // what the upper edge stands for
	From, To time.Time
	Empty    bool
}

// NewGraph draws what value says of each sample between two moments; top is the value of the upper edge. A gap of more than ten
// minutes interrupts the line.
func NewGraph(samples []Sample, from, to time.Time, top int, value func(Sample) int) Graph {
	g := Graph{Top: max(top, 1), From: from, To: to, Empty: len(samples) == 0}
	if g.Empty || !to.After(from) {
		g.Empty = true
		return g
	}
	g.Low = value(samples[0])
	step := max(1, (len(samples)+graphPoints-1)/graphPoints)
	var line, area strings.Builder
	var last time.Time
	lastX := 0.0
	for i := 0; i < len(samples); i += step {
		s, v := samples[i], 0
		for _, o := range samples[i:min(i+step, len(samples))] { // the highest of those that one point stands for
			v = max(v, value(o))
			g.Low = min(g.Low, value(o))
		}
		g.High, g.Now = max(g.High, v), value(s)
		x := graphWidth * s.Time.Sub(from).Seconds() / to.Sub(from).Seconds()
		y := graphHeight * (1 - float64(min(v, g.Top))/float64(g.Top))
		if last.IsZero() || s.Time.Sub(last) > time.Duration(step)*10*time.Minute {
			if !last.IsZero() {
				fmt.Fprintf(&area, "L%.0f %dZ", lastX, graphHeight)
			}
			fmt.Fprintf(&line, "M%.0f %.0f", x, y)
			fmt.Fprintf(&area, "M%.0f %dL%.0f %.0f", x, graphHeight, x, y)
		} else {
			fmt.Fprintf(&line, "L%.0f %.0f", x, y)
			fmt.Fprintf(&area, "L%.0f %.0f", x, y)
		}
		last, lastX = s.Time, x
	}
	fmt.Fprintf(&area, "L%.0f %dZ", lastX, graphHeight)
	g.Now = value(samples[len(samples)-1])
	g.Path, g.Area = line.String(), area.String()
	return g
}
