package main

import (
	"fmt"
	"strings"
	"time"
)

// report is the outcome of a run.
type report struct {
	date    time.Time
	devices int
	delta   int64
	costs   costs
	fleets  []fleet // one for each kind of wave
	large   []fleet // the same with ten times the devices
}

// String writes the report as Markdown.
func (r report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# What a fleet of devices costs its server

Written by %[1]smake bench-fleet%[1]s on %[2]s. What one device does is measured: the client that devices run takes a release of %[3]d layers,
with a delta of %.1[4]f MB, from a web server of plain files on this machine. Bytes are those of HTTP with its heads, without TLS, whose
handshake adds about 4 KB to each check. MB = 10^6 bytes.

| one device | requests | server sends, bytes | server gets, bytes |
|---|---:|---:|---:|
`, "`", r.date.UTC().Format("2006-01-02"), layers, float64(r.delta)/1e6)
	for _, row := range []struct {
		name string
		cost cost
	}{
		{"first check of a new device", r.costs.first},
		{"check that finds nothing new", r.costs.idle},
		{"check that finds a release", r.costs.notice},
		{"fetching the delta", r.costs.fetch},
	} {
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", row.name, row.cost.requests, row.cost.sent, row.cost.asked)
	}
	fmt.Fprintf(&b, `
The rest is computed from that, with the schedule that devices keep: each checks every four hours, a quarter more or less, fetches from
its turn in the wave on, and restarts in its night. The release is published at noon; all devices have the same time zone, which is the
worst case. Devices that are off, metered or without a delta are left out.

## %d devices
`, r.devices)
	for _, f := range r.fleets {
		f.table(&b)
	}
	b.WriteString(`
## Busiest minutes

| devices | wave | requests a second | MB a second | Mbit a second | whole release, GB |
|---:|---|---:|---:|---:|---:|
`)
	for _, f := range append(r.fleets, r.large...) {
		sum, most := f.between(-before, time.Duration(len(f.steps))*step-before)
		mb := float64(most.bytes) / 1e6 / step.Seconds()
		fmt.Fprintf(&b, "| %d | %s | %.0f | %.1f | %.0f | %.0f |\n", f.devices, f.wave.Kind,
			float64(most.requests)/step.Seconds(), mb, 8*mb, float64(sum.bytes)/1e9)
	}
	return b.String()
}

// table writes the load over time.
func (f fleet) table(b *strings.Builder) {
	fmt.Fprintf(b, `
Wave %q, %d hours:

| hours after publication | requests a second | in the busiest minute | MB a second | in the busiest minute | have it, %% | restarted, %% |
|---|---:|---:|---:|---:|---:|---:|
`, f.wave.Kind, f.wave.Hours)
	rows := []int{-12, 0, 1, 2, 4, 8, 12, 16, 24, 36, 48, 60, 72, 84, 96}
	var total load
	for i, from := range rows[:len(rows)-1] {
		to := rows[i+1]
		if to > f.wave.Hours+24 {
			break
		}
		sum, most := f.between(time.Duration(from)*time.Hour, time.Duration(to)*time.Hour)
		seconds := float64(to-from) * 3600
		total.fetched += sum.fetched
		total.restart += sum.restart
		fmt.Fprintf(b, "| %d to %d | %.1f | %.1f | %.2f | %.2f | %.1f | %.1f |\n", from, to, float64(sum.requests)/seconds,
			float64(most.requests)/step.Seconds(), float64(sum.bytes)/1e6/seconds, float64(most.bytes)/1e6/step.Seconds(),
			100*float64(total.fetched)/float64(f.devices), 100*float64(total.restart)/float64(f.devices))
	}
}
