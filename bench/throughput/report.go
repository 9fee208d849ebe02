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

Written by %[1]smake bench-sandbox%[1]s on %[2]s. The same programs (nginx, PHP, MariaDB, slapd, Prosody) of the same packages, with
the same configuration and data, answer requests from outside: once as modules of a box, once as plain services of a Debian 13 with
systemd and no firewall. Both are equal emulated machines (QEMU, TCG, one CPU, %[3]d MiB of memory) with the same kernel and btrfs. They
are measured in turn, %[4]d rounds, while the other one stands still; medians count. Host: %[5]d CPUs; load averages: %[6]s.
The box's volumes are compressed and have quotas, the peer's files have neither, which is part of what archived messages cost.

Instructions are the guest's own (-icount), which other work of the host hardly changes; those that the machine does at rest in the same
time are taken off. CPU is that of the QEMU process and all that the guest does meanwhile. Ratios are sandbox to native throughput, so
that less than 1 is what the sandbox costs; goal: at least %.2[7]f. What they are made of and where the rest goes:
[decision 10](decisions/0010-short-way.md).

| load | 1000 instructions each, sandbox | native | **ratio** | quartiles | ratio with those at rest | CPU ms each, sandbox | native | ratio | a second, sandbox | native | ratio |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
`, "`", r.date.UTC().Format("2006-01-02"), memory, r.rounds, runtime.NumCPU(), strings.Join(r.averages, ", then "), goal)
	for _, x := range r.results {
		x.row(&b)
	}
	b.WriteString("\nQuartiles are of the rounds' own ratios. The loads:\n\n")
	for _, x := range r.results {
		fmt.Fprintf(&b, "- %s: %s; %d in a round\n", x.name, x.unit, x.number)
	}
	if len(r.results) > 0 {
		x := r.results[0]
		fmt.Fprintf(&b, "\nAt rest, in 1000 instructions a second: sandbox %.0f, native %.0f.\n",
			median(each(x.ours, cost.rest))/1e3, median(each(x.native, cost.rest))/1e3)
	}
	return b.String()
}

func (x result) row(b *strings.Builder) {
	a, n := x.medians(cost.ownEach)
	ours, native := each(x.ours, cost.ownEach), each(x.native, cost.ownEach)
	ratios := make([]float64, len(ours))
	for i := range ratios {
		ratios[i] = native[i] / ours[i]
	}
	fmt.Fprintf(b, "| %s | %.0f | %.0f | **%.2f** | %.2f to %.2f |", x.name, a/1e3, n/1e3, n/a, quantile(ratios, 0.25), quantile(ratios, 0.75))
	a, n = x.medians(cost.instructionsEach)
	fmt.Fprintf(b, " %.2f |", n/a)
	a, n = x.medians(cost.cpuEach)
	fmt.Fprintf(b, " %.3f | %.3f | %.2f |", 1e3*a, 1e3*n, n/a)
	a, n = x.medians(cost.wallEach)
	fmt.Fprintf(b, " %.0f | %.0f | %.2f |\n", 1/a, 1/n, n/a)
}

// medians are those of both systems.
func (x result) medians(f func(cost) float64) (ours, native float64) {
	return median(each(x.ours, f)), median(each(x.native, f))
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
