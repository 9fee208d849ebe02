// Command modules measures the modules of a profile as they run together on one small machine: memory when idle and at
// most, processor time, disk; and what it saves that modules share layers. It prints a page in Markdown.
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
	"allotment/internal/terminal"
)

func main() {
	tools.EnterIfAsked()
	var b bench
	flag.StringVar(&b.profile, "profile", "garden-club", "the `name` of the profile whose modules are measured")
	flag.StringVar(&b.keys, "keys", "keys", "`folder` of the signing keys")
	flag.IntVar(&b.copies, "copies", 4, "`number` of modules that share layers, and then do not")
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
	var err error
	if b.keys, err = filepath.Abs(b.keys); err != nil {
		return err
	}
	if b.source, err = builder.FindSource("."); err != nil {
		return err
	}
	if b.cache, err = cache.Default(); err != nil {
		return err
	}
	if b.tools, err = tools.OpenFrom(ctx, b.cache, profile.Debian{}, progress); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "allotment-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	r := report{profile: b.profile, date: now, load: []string{host.Load()}, copies: b.copies}
	if r.together, err = b.together(ctx); err != nil {
		return err
	}
	r.load = append(r.load, host.Load())
	if r.shared, r.apart, err = b.sharing(ctx); err != nil {
		return err
	}
	r.load = append(r.load, host.Load())
	return host.Print(r.String(), write)
}
