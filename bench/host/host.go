// Package host is what the benchmarks share: how busy the machine is, and where a finished page goes.
package host

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Load is the load average of the last minute, as the kernel writes it.
func Load() string {
	one := "unknown"
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		fmt.Sscan(string(b), &one)
	}
	return one
}

// Sleep waits, or returns why ctx ended; measuring something that does nothing has no event to wait for.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Print prints a finished page, and also writes it to the file, if one is named.
func Print(page, file string) error {
	if file != "" {
		if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
			return err
		}
	}
	_, err := fmt.Print(page)
	return err
}
