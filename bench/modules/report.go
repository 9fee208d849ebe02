package main

import (
	"fmt"
	"runtime"
	"strings"
	"time"

	"allotment/api"
)

// report is the outcome of a run.
type report struct {
	profile       string
	date          time.Time
	load          []string
	together      *together
	copies        int
	shared, apart int64 // bytes
}

const goal = 400 // MiB, of a box with the first four modules when idle

// String writes the report as Markdown.
func (r report) String() string {
	var b strings.Builder
	t := r.together
	fmt.Fprintf(&b, `# What modules use

Written by %[1]smake bench-modules%[1]s on %[2]s. All modules of profile %[3]s together on one emulated machine (QEMU, TCG, one CPU,
%[4]d MiB of memory). Host: %[5]d CPUs; load averages: %[6]s.

Idle is a minute after the last service got ready; memory is what programs hold themselves (anonymous) and with the files that
they have read (in all), the most is since boot and after every journey has run three times. CPU at idle is over another minute.

| module | service | idle, own MiB | idle, in all MiB | most MiB | CPU at idle, %% | CPU s to start | s to start |
|---|---|---:|---:|---:|---:|---:|---:|
`, "`", r.date.UTC().Format("2006-01-02"), r.profile, memory, runtime.NumCPU(), strings.Join(r.load, ", then "))
	for _, m := range t.idle.Modules {
		r.module(&b, m)
	}
	fmt.Fprintf(&b, "| (the box itself) | supervisor, gateway, resolver | %s | %s | %s | %s | | |\n", mib(t.idle.System.Anonymous),
		mib(t.idle.System.Memory), mib(t.after.System.MemoryPeak), r.busy(t.first.System, t.idle.System))
	fmt.Fprintf(&b, "\nIn use in all when idle (neither free nor page cache, kernel included): **%s MiB**; goal: under %d.\n", mib(t.used), goal)
	fmt.Fprintf(&b, "CPU of the whole box when idle: %.1f %%. Available memory when idle: %s MiB; after the journeys: %s MiB.\n",
		100*(t.idle.CPU-t.first.CPU)/(t.idle.Uptime-t.first.Uptime), mib(t.idle.Available), mib(t.after.Available))
	r.disk(&b)
	fmt.Fprintf(&b, `
## Shared layers

%d modules that are PHP's process manager with four workers each, beside the page; memory that is not free, page cache included,
more than that of a box with the page alone:

| layers | MiB |
|---|---:|
| shared | %s |
| each its own, with the same content | %s |

Ratio %.2f: the pages of a file in a shared layer are in memory once. It was the first boot, whose copying of the layers
to the disk has part in the page cache.
`, r.copies, mib(r.shared), mib(r.apart), float64(r.shared)/float64(r.apart))
	return b.String()
}

// module writes the rows of a module.
func (r report) module(b *strings.Builder, m api.ModuleResources) {
	for _, s := range m.Services {
		first, after := service(r.together.first, m.Name, s.Name), service(r.together.after, m.Name, s.Name)
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %.1f | %.1f |\n", m.Name, s.Name, mib(s.Usage.Anonymous), mib(s.Usage.Memory),
			mib(after.Usage.MemoryPeak), r.busy(first.Usage, s.Usage), s.StartCPU, s.StartSec)
	}
}

// disk writes the table of what modules take on disk.
func (r report) disk(b *strings.Builder) {
	b.WriteString("\n| module | layers, MiB (shared ones counted for each) | volumes, MiB |\n|---|---:|---:|\n")
	for _, m := range r.together.after.Modules {
		var used int64
		for _, v := range m.Volumes {
			used += v.Used
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", m.Name, mib(m.Layers), mib(used))
	}
	a := r.together.after
	fmt.Fprintf(b, "| state partition, used of %s | %s | |\n", mib(a.Disk), mib(a.Disk-a.DiskFree))
}

// busy is the share of one processor, in percent, between two measurements of the idle box.
func (r report) busy(first, then api.Usage) string {
	return fmt.Sprintf("%.2f", 100*(then.CPU-first.CPU)/(r.together.idle.Uptime-r.together.first.Uptime))
}

func service(r api.Resources, module, name string) api.ServiceResources {
	for _, m := range r.Modules {
		for _, s := range m.Services {
			if m.Name == module && s.Name == name {
				return s
			}
		}
	}
	return api.ServiceResources{}
}

func mib(bytes int64) string { return fmt.Sprintf("%.0f", float64(bytes)/(1<<20)) }
