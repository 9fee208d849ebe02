package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// goal is the least ratio of the sandbox's throughput to the native one.
const goal = 0.95

// report is the outcome of a run.
type report struct {
	date     time.Time
	rounds   int
	averages []string // of the machine load
	results  []result
}

// String writes the report as Markdown.
func (r report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Throughput through the sandbox

Written by %[1]smake bench-sandbox%[1]s on %[2]s. The same programs (nginx, slapd, Prosody) of the same packages, with the same
configuration and data, answer requests from outside: once as modules of a box, once as plain services of a Debian 13 with systemd.
Both are equal emulated machines (QEMU, TCG, one CPU, %[3]d MiB of memory) with the same kernel and btrfs. They are measured in turn,
%[4]d rounds, while the other one stands still; medians count. Host: %[5]d CPUs; load averages: %[6]s.

CPU is that of the QEMU process, all that the guest does meanwhile included. Instructions are the guest's own (-icount), which other
work of the host hardly changes. Ratios are sandbox to native throughput, so that less than 1 is what the sandbox costs; goal:
at least %.2[7]f.

| load | CPU ms each, sandbox | native | **ratio** | quartiles | 1000 instructions each, sandbox | native | ratio | a second, sandbox | native | ratio |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
`, "`", r.date.UTC().Format("2006-01-02"), memory, r.rounds, runtime.NumCPU(), strings.Join(r.averages, ", then "), goal)
	for _, x := range r.results {
		x.row(&b)
	}
	b.WriteString("\nQuartiles are of the rounds' own ratios. The loads:\n\n")
	for _, x := range r.results {
		fmt.Fprintf(&b, "- %s: %s; %d in a round\n", x.name, x.unit, x.number)
	}
	return b.String()
}

func (x result) row(b *strings.Builder) {
	ours, native := each(x.ours, cost.cpuEach), each(x.native, cost.cpuEach)
	pairs := make([]float64, len(ours))
	for i := range pairs {
		pairs[i] = native[i] / ours[i]
	}
	a, n := median(ours), median(native)
	fmt.Fprintf(b, "| %s | %.3f | %.3f | **%.2f** | %.2f to %.2f |", x.name, 1e3*a, 1e3*n, n/a, quantile(pairs, 0.25), quantile(pairs, 0.75))
	a, n = median(each(x.ours, cost.instructionsEach)), median(each(x.native, cost.instructionsEach))
	fmt.Fprintf(b, " %.0f | %.0f | %.2f |", a/1e3, n/1e3, n/a)
	a, n = median(each(x.ours, cost.wallEach)), median(each(x.native, cost.wallEach))
	fmt.Fprintf(b, " %.0f | %.0f | %.2f |\n", 1/a, 1/n, n/a)
}

func median(values []float64) float64 { return quantile(values, 0.5) }

func each(costs []cost, f func(cost) float64) []float64 {
	var all []float64
	for _, c := range costs {
		all = append(all, f(c))
	}
	return all
}

// quantile is the value that the share q of all values are below, between neighbours in proportion. There is at least one value.
func quantile(values []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(values))
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 == len(s) {
		return s[i]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}
