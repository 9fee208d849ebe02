// Command update measures what an update costs: a real pair of releases, Debian 13's point release without and with its
// security updates, by our deltas and packs and by what others do. It prints a page in Markdown.
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
	profile, keys string
	workers       int
	peers         bool
	progress      progress.Reporter
	source        builder.Source
	cache         cache.Dir
	tools         *tools.Root
	dir           string // for all that the run makes
}

func main() {
	tools.EnterIfAsked()
	if len(os.Args) == 3 && os.Args[1] == deviceVerb {
		exit(device(os.Args[2]))
	}
	var b bench
	var source string
	flag.StringVar(&b.profile, "profile", "garden-club", "the `name` of the profile that is updated")
	flag.StringVar(&b.keys, "keys", "keys", "`folder` of the signing keys")
	flag.StringVar(&source, "source", ".", "`folder` in the source code that is built")
	flag.IntVar(&b.workers, "workers", 2, "`number` of ranges that are compared at once")
	flag.BoolVar(&b.peers, "peers", true, "also measure what others cost")
	flag.StringVar(&b.dir, "dir", "", "keep releases in this `folder`, and take those that are there instead of building them")
	write := flag.String("write", "", "also write the page to this `file`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(b.run(ctx, source, *write, time.Now()))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run measures everything and writes the page.
func (b *bench) run(ctx context.Context, source, write string, now time.Time) error {
	steps := terminal.New(os.Stderr)
	defer steps.Close()
	b.progress = steps
	var err error
	if b.keys, err = filepath.Abs(b.keys); err != nil {
		return err
	}
	if b.source, err = builder.FindSource(source); err != nil {
		return err
	}
	if b.cache, err = cache.Default(); err != nil {
		return err
	}
	if b.tools, err = tools.OpenFrom(ctx, b.cache, profile.Debian{}, steps); err != nil {
		return err
	}
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "allotment-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(b.dir)
	}
	r := report{profile: b.profile, date: now, load: []string{host.Load()}}
	if err := b.measure(ctx, &r, now); err != nil {
		return err
	}
	r.load = append(r.load, host.Load())
	return host.Print(r.String(), write)
}
