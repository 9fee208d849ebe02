// Command allot builds Allotment's images: it resolves a profile's packages into a lock, builds signed images from the
// lock, reads finished images, and boots them in an emulator. This package is wiring; the work is done in builder, image
// and qemu-tests/vm.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"allotment/builder/tools"
)

func main() {
	tools.EnterIfAsked()
	// The first Ctrl-C asks every step to stop and clean up; the second ends the program as usual.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	if err := newRoot().ExecuteContext(ctx); err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted; nothing unfinished is left, and what was finished is kept for the next time")
		}
		fmt.Fprintf(os.Stderr, "allot: %v\n", err)
		os.Exit(exitCode(ctx))
	}
}

// exitCode is 130 after an interrupt, as shells expect, and 1 after any other failure.
func exitCode(ctx context.Context) int {
	if ctx.Err() != nil {
		return 130
	}
	return 1
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "allot",
		Short: "Build, inspect and boot Allotment images",
		Long: `Build, inspect and boot Allotment images.

A profile (profiles/NAME.toml) says what an image is for; its lock (profiles/NAME.lock) names every package by hash.
  allot key new keys            make the keys that sign boot files
  allot build garden-club       build the images of a profile
  allot run garden-club         build it and boot it in QEMU until its web page answers
  allot inspect IMAGE           show what a finished image holds and judge it
Exit status: 0 when done, 1 after an error, 130 after Ctrl-C.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })
	var c common
	c.addFlags(root.PersistentFlags())
	root.AddCommand(newLock(&c), newBuild(&c), newInspect(&c), newRun(&c), newKey(&c), newModule(&c), newDevice(), newRelease(&c))
	return root
}

// one accepts a single argument, which usage texts call name.
func one(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return nil
		}
		return usage(cmd, fmt.Errorf("want one %s, not %d arguments", name, len(args)))
	}
}

// usage adds where to read how a command is used.
func usage(cmd *cobra.Command, err error) error {
	return fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())
}
