// Package clock keeps the time of a machine whose own clock may be anything: it never shows less than the newest input
// of the release and than the time it showed last, and follows NTP servers as far as they agree. Without any server
// everything works on.
package clock

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Sample is what one server said.
type Sample struct {
	Server string
	Offset time.Duration // to add to our clock
	Error  time.Duration // most that the offset can be wrong by: the root distance of RFC 5905, section 10
}

// Floor is the time to begin with: the latest of what the machine's clock shows, the epoch of the release and the last
// time known.
func Floor(now, epoch, last time.Time) time.Time {
	for _, t := range []time.Time{epoch, last} {
		if t.After(now) {
			now = t
		}
	}
	return now
}

// mostYears bounds how far after the epoch of its release a box can be: a last time or a server beyond that is wrong.
const mostYears = 20

// Plausible tells whether the time can be right for a release with this epoch.
func Plausible(t, epoch time.Time) bool {
	return !t.Before(epoch) && t.Before(epoch.AddDate(mostYears, 0, 0))
}

// errDisagree is why Agree found no time.
var errDisagree = errors.New("the time servers do not agree")

// Agree returns the offset on which most of the samples agree. Those that lead to an implausible time do not count as
// right, but do count as answers. It is the intersection algorithm of RFC 5905, section 11.2.1, made simple: the point
// that most of the intervals offset ± error contain, and that more than half of them must.
func Agree(samples []Sample, now, epoch time.Time) (time.Duration, error) {
	type edge struct {
		at   time.Duration
		step int // +1 where an interval begins, -1 where it ends
	}
	var edges []edge
	for _, s := range samples {
		if Plausible(now.Add(s.Offset), epoch) {
			edges = append(edges, edge{s.Offset - s.Error, +1}, edge{s.Offset + s.Error, -1})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if a.at != b.at {
			return int(max(-1, min(1, a.at-b.at)))
		}
		return b.step - a.step // intervals that touch agree
	})
	depth, deepest := 0, 0
	var from, to time.Duration
	for i, e := range edges {
		depth += e.step
		if depth > deepest {
			deepest, from, to = depth, e.at, edges[i+1].at
		}
	}
	if deepest == 0 || 2*deepest <= len(samples) {
		return 0, fmt.Errorf("%w: %d of %d say the same", errDisagree, deepest, len(samples))
	}
	return from + (to-from)/2, nil
}

// Correction is what to do about an offset.
type Correction int

// The corrections: nothing, let the clock run a little faster or slower until it is right, or set it.
const (
	Leave Correction = iota
	Slew
	Step
)

// Bounds of the corrections. The kernel slews at most half a second at a time.
const (
	leaveBelow = 500 * time.Microsecond
	slewBelow  = 400 * time.Millisecond
)

// Decide chooses the correction: the first time the clock is set, later it is moved gently unless it is far off.
func Decide(offset time.Duration, first bool) Correction {
	switch size := offset.Abs(); {
	case size < leaveBelow:
		return Leave
	case size < slewBelow && !(first && size > 10*time.Millisecond):
		return Slew
	}
	return Step
}
