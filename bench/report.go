package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// system is all that was measured of one system.
type system struct {
	builds builds
	boots  []boot
}

// report is the outcome of a run.
type report struct {
	profile    string
	runs       int
	date       time.Time
	host       string
	load       []string // load averages: at the start, after the builds, at the end
	ours, peer system
}

// row is one line of the table. Values are in the unit that the name says; 0 stands for what does not exist.
type row struct {
	name       string
	ours, peer float64
	goal       string
}

// String writes the report as Markdown.
func (r report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Benchmarks

Written by %smake bench%s on %s. Profile %s, beside a Debian 13 (minbase, systemd, nginx, Debian's generic kernel) made by
mmdebstrap that serves the same page. Both are built and booted by the same programs on the same machine in the same run:
UEFI, systemd-boot, a UKI, one emulated CPU (QEMU, TCG), %d MiB of memory. Of %d boots each, in turn, the median counts.

Host: %s. Load averages: %s.

| what | Allotment | Debian 13 | ratio | goal |
|---|---:|---:|---:|---|
`, "`", "`", r.date.UTC().Format("2006-01-02"), r.profile, memory, r.runs, r.host, strings.Join(r.load, ", then "))
	for _, row := range r.rows() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", row.name, number(row.ours), number(row.peer), row.ratio(), row.goal)
	}
	b.WriteString(notes)
	return b.String()
}

const notes = `
A build from nothing starts with an empty cache and downloads everything, ours the tool root too. CPU seconds of a boot are
those of the QEMU process. "Kernel start" is the first line of the kernel's EFI stub on the console. Memory in use is what is
neither free nor page cache, as the guest tells by the virtio balloon, 20 s after the page.
`

func (r report) rows() []row {
	o, p := r.ours.builds, r.peer.builds
	median := func(f func(boot) float64) (ours, peer float64) {
		return medianOf(r.ours.boots, f), medianOf(r.peer.boots, f)
	}
	add := func(rows []row, name, goal string, f func(boot) float64) []row {
		ours, peer := median(f)
		return append(rows, row{name, ours, peer, goal})
	}
	rows := []row{
		{"build from nothing, s", o.cold.wall.Seconds(), p.cold.wall.Seconds(), ""},
		{"build from nothing, CPU s", o.cold.cpu.Seconds(), p.cold.cpu.Seconds(), ""},
		{"build, one file of a module changed, s", o.changed.wall.Seconds(), 0, "under 10"},
		{"build, nothing changed, s", o.again.wall.Seconds(), 0, "about 1"},
		{"disk image, MB", mb(o.size), mb(p.size), ""},
		{"disk image without zeros, MB", mb(o.data), mb(p.data), ""},
		{"download (zstd), MB", mb(o.download), mb(p.download), ""},
		{"download without modules, MB", mb(o.base), 0, "under 90"},
	}
	rows = add(rows, "power-on to page, s", "", func(b boot) float64 { return b.page.wall.Seconds() })
	rows = add(rows, "power-on to page, CPU s", "", func(b boot) float64 { return b.page.cpu.Seconds() })
	rows = add(rows, "kernel start to page, CPU s", "ratio at most 0.5", func(b boot) float64 {
		return (b.page.cpu - b.kernel.cpu).Seconds()
	})
	rows = add(rows, "memory in use when idle, MiB", "base under 64", func(b boot) float64 { return float64(b.used) / (1 << 20) })
	return add(rows, "CPU when idle, % of one", "", func(b boot) float64 {
		return 100 * b.idle.cpu.Seconds() / b.idle.wall.Seconds()
	})
}

func mb(bytes int64) float64 { return float64(bytes) / 1e6 }

// ratio is ours to the peer's.
func (r row) ratio() string {
	if r.ours == 0 || r.peer == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", r.ours/r.peer)
}

func number(f float64) string {
	switch {
	case f == 0:
		return ""
	case f < 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.0f", f)
}

// medianOf is the median of a value over boots, the lower of two middles.
func medianOf(boots []boot, f func(boot) float64) float64 {
	if len(boots) == 0 {
		return 0
	}
	var values []float64
	for _, b := range boots {
		values = append(values, f(b))
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

// describeHost names the processor and their number.
func describeHost() string {
	name := runtime.GOARCH
	info, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for s := bufio.NewScanner(bytes.NewReader(info)); s.Scan(); {
			if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
				name = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("%d x %s", runtime.NumCPU(), name)
}
