package main

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// report is the outcome of a run.
type report struct {
	profile string
	date    time.Time
	load    []string
	pairs   []pair
}

// String writes the report as Markdown.
func (r report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# What an update costs

Written by %[1]smake bench-update%[1]s on %[2]s. Old: Debian 13's point release alone, files dated ten weeks earlier. New: the same packages
with all updates and security updates of today. The modules and the release are of profile %[3]s, amd64, built by Allotment; the mail server is a
tree of %[4]s, which has no module yet. MB = 10^6 bytes; bytes are exact, CPU is user and system
time on %[5]d CPUs with load averages %[6]s, one run.

## Bytes that a device downloads, MB

| what | new parts | our delta | %% of full | our packs, no delta | all packs | full, zstd -19 | apt: changed .debs | OSTree static delta | OSTree pull | RAUC adaptive | casync |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
`, "`", r.date.UTC().Format("2006-01-02"), r.profile, strings.Join(mailPackages[2:], ", "), runtime.NumCPU(), strings.Join(r.load, ", then "))
	for _, p := range r.pairs {
		fmt.Fprintf(&b, "| %s | %s | **%s** | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", p.Name, mb(p.size()), mb(p.ours.delta),
			percent(p.ours.delta, p.peers.full), mb(p.ours.fetched), mb(p.ours.whole), mb(p.peers.full), mb(p.Debs), mb(p.peers.ostree),
			mb(p.peers.pull), mb(p.peers.rauc), mb(p.peers.casync))
	}
	b.WriteString(`
"Our packs" is what a device fetches that has any older version, indexes included; "all packs" is a first installation. A delta starts from
one release, packs and casync from any. RAUC's adaptive method is computed, not run: the index of SHA-256 hashes of 4 KiB blocks, and every
block that no old part has, as it is. OSTree has the files of all parts (extracted by fsck.erofs), casync the EROFS files with its default chunks,
zstd the EROFS files one by one (` + "`-19 --long=27`" + `). apt's indexes come on top of its packages.

## What it costs to make and to apply

| what | build, CPU s | operations | changed, MB | apply, CPU s | peak memory, MiB | written, MB | shared, MB | written / changed | packs: CPU s | peak, MiB | written, MB | requests |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
`)
	for _, p := range r.pairs {
		o := p.ours
		fmt.Fprintf(&b, "| %s | %.1f | %d | %s | %.1f | %.1f | %s | %s | %.2f | %.1f | %.1f | %s | %d |\n", p.Name, o.build, o.stats.Operations,
			mb(o.changed()), o.apply.CPU, mib(o.apply.Peak), mb(o.apply.Written), mb(o.apply.Shared), ratio(o.apply.Written, o.changed()),
			o.other.CPU, mib(o.other.Peak), mb(o.other.Written), o.requests)
	}
	b.WriteString(`
Applying is a process of its own, with ` + "`" + memoryLimit + "`" + `; its peak is that of its resident memory (VmHWM), program and Go runtime included, page
cache not. "Shared" are bytes that btrfs clones instead of writing them; here they are copied, and counted apart. With packs, the device
first reads and hashes all that it has.

`)
	r.goals(&b)
	return b.String()
}

// goals writes what was aimed at and whether it was reached.
func (r report) goals(b *strings.Builder) {
	b.WriteString("## Goals\n\n| goal | measured | reached |\n|---|---|---|\n")
	row := func(goal, measured string, reached bool) {
		fmt.Fprintf(b, "| %s | %s | %s |\n", goal, measured, map[bool]string{true: "yes", false: "**no**"}[reached])
	}
	var peak, apt float64
	var written float64
	for _, p := range r.pairs {
		peak = max(peak, mib(p.ours.apply.Peak), mib(p.ours.other.Peak))
		written = max(written, ratio(p.ours.apply.Written, p.ours.changed()))
		if p.Name == sameKernel || p.Name == mailServer {
			apt = max(apt, ratio(p.ours.delta, p.Debs))
			limit := map[string]float64{sameKernel: 0.03, mailServer: 0.02}[p.Name]
			share := ratio(p.ours.delta, p.peers.full)
			row(fmt.Sprintf("%s: at most %.0f %% of the full download", p.Name, 100*limit), percent(p.ours.delta, p.peers.full), share > 0 && share <= limit)
		}
	}
	row("both: at most an eighth of apt's bytes", fmt.Sprintf("1/%.1f", 1/apt), apt <= 1.0/8)
	row("at most 64 MiB of memory", fmt.Sprintf("%.1f MiB", peak), peak <= 64)
	row("written at most 1.5 times what changed", fmt.Sprintf("%.2f", written), written <= 1.5)
}

// mb is a number of bytes in MB, or nothing if it was not measured.
func mb(n int64) string {
	switch {
	case n == 0:
		return ""
	case n < 1e5:
		return fmt.Sprintf("%.3f", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f", float64(n)/1e6)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func ratio(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

func percent(a, b int64) string {
	if b == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f %%", 100*ratio(a, b))
}
