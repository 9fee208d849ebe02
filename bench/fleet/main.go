// Command fleet says what a repository's web server has to bear: the requests and bytes of one device, measured with the
// client that devices run, and those of all devices over time, computed with the schedule that devices keep.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	devices := flag.Int("devices", 100000, "`number` of devices")
	delta := flag.Int64("delta", 3_250_000, "`bytes` of a release's delta")
	write := flag.String("write", "", "also write the page to this `file`")
	flag.Parse()
	if err := run(context.Background(), *devices, *delta, *write, time.Now()); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// run measures, computes and writes the page.
func run(ctx context.Context, devices int, delta int64, write string, now time.Time) error {
	c, err := measure(ctx, delta)
	if err != nil {
		return err
	}
	r := report{date: now, devices: devices, delta: delta, costs: c}
	for _, w := range waves {
		r.fleets = append(r.fleets, simulate(devices, w, c))
		r.large = append(r.large, simulate(10*devices, w, c))
	}
	page := r.String()
	fmt.Print(page)
	if write == "" {
		return nil
	}
	return os.WriteFile(write, []byte(page), 0o644)
}
