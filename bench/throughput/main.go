// Command throughput measures what the sandbox costs: the same programs with the same configuration and data answer the same
// requests, once as modules of a box and once as plain services of a Debian 13, on equal machines. It prints a page in Markdown.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"allotment/bench/host"
	"allotment/builder"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/internal/terminal"
)

// bench is a run under way.
type bench struct {
	keys     string
	rounds   int
	progress progress.Reporter
	source   builder.Source
	cache    cache.Dir
	tools    *tools.Root
	dir      string // for all that the run makes
}

func main() {
	tools.EnterIfAsked()
	var b bench
	flag.StringVar(&b.keys, "keys", "keys", "`folder` of the signing keys")
	flag.IntVar(&b.rounds, "rounds", 9, "`times` that each load is put on each system; the median counts")
	flag.StringVar(&b.dir, "dir", "", "`folder` to work in and leave as it is, below the one for temporary files; a Debian built there "+
		"before is used again")
	write := flag.String("write", "", "also write the page to this `file`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx, *write, time.Now()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures everything and writes the page.
func (b *bench) run(ctx context.Context, write string, now time.Time) error {
	progress := terminal.New(os.Stderr)
	defer progress.Close()
	b.progress = progress
	if err := b.open(ctx); err != nil {
		return err
	}
	if b.dir == "" {
		var err error
		if b.dir, err = os.MkdirTemp("", "allotment-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(b.dir)
	}
	r := report{date: now, rounds: b.rounds, averages: []string{host.Load()}}
	var err error
	if r.results, err = b.measure(ctx); err != nil {
		return err
	}
	r.averages = append(r.averages, host.Load())
	return host.Print(r.String(), write)
}

// open finds what every build and boot needs.
func (b *bench) open(ctx context.Context) (err error) {
	if b.keys, err = filepath.Abs(b.keys); err != nil {
		return err
	}
	if b.source, err = builder.FindSource("."); err != nil {
		return err
	}
	if b.cache, err = cache.Default(); err != nil {
		return err
	}
	b.tools, err = tools.OpenFrom(ctx, b.cache, profile.Debian{}, b.progress)
	return err
}
