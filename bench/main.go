// Command bench measures Allotment and, in the same run and on the same machine, a Debian 13 that serves the same page. It
// prints a table in Markdown. Absolute times say little about another machine; the ratios are what counts.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"allotment/bench/host"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/internal/cache"
	"allotment/internal/terminal"
)

func main() {
	tools.EnterIfAsked()
	var o options
	flag.StringVar(&o.profile, "profile", "minimal", "the `name` of the profile to build")
	flag.StringVar(&o.keys, "keys", "keys", "`folder` of the signing keys")
	flag.IntVar(&o.runs, "runs", 3, "`times` that each system is booted; the median counts")
	write := flag.String("write", "", "also write the table to this `file`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, o, *write); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, o options, write string) error {
	progress := terminal.New(os.Stderr)
	defer progress.Close()
	b := &bench{options: o, progress: progress}
	text, err := b.all(ctx, time.Now())
	if err != nil {
		return err
	}
	return host.Print(text, write)
}

// openTools opens the tool root in the user's cache: the peer is built and all machines run with its programs.
func (b *bench) openTools(ctx context.Context) error {
	dir, err := cache.Default()
	if err != nil {
		return err
	}
	b.tools, err = tools.OpenFrom(ctx, dir, profile.Debian{}, b.progress)
	return err
}
