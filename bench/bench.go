package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"allotment/bench/host"
	"allotment/builder/tools"
	"allotment/internal/progress"
)

// options says what to measure.
type options struct {
	profile string
	keys    string
	runs    int
}

// bench is a run under way.
type bench struct {
	options
	progress progress.Reporter
	tools    *tools.Root
	dir      string // for all that the run makes
}

// all measures everything and returns the report.
func (b *bench) all(ctx context.Context, now time.Time) (string, error) {
	dir, err := os.MkdirTemp("", "allotment-bench-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	b.dir = dir
	if b.keys, err = filepath.Abs(b.keys); err != nil {
		return "", err
	}
	r := report{profile: b.profile, runs: b.runs, host: describeHost(), date: now, load: []string{host.Load()}}
	if err := b.openTools(ctx); err != nil {
		return "", err
	}
	if r.ours.builds, err = b.buildOurs(ctx); err != nil {
		return "", err
	}
	if r.peer.builds, err = b.buildPeer(ctx); err != nil {
		return "", err
	}
	r.load = append(r.load, host.Load())
	if err := b.bootBoth(ctx, &r); err != nil {
		return "", err
	}
	r.load = append(r.load, host.Load())
	return r.String(), nil
}

// bootBoth boots the two systems in turn, so that a change in the machine's load meets both.
func (b *bench) bootBoth(ctx context.Context, r *report) error {
	for i := range b.runs {
		for _, s := range []struct {
			name string
			*system
		}{{"allotment", &r.ours}, {"debian", &r.peer}} {
			step := b.progress.Step(fmt.Sprintf("boot %s, %d of %d", s.name, i+1, b.runs), 0)
			boot, err := b.boot(ctx, s.builds.disk, filepath.Join(b.dir, fmt.Sprintf("vm-%s-%d", s.name, i)))
			step.Done(err)
			if err != nil {
				return err
			}
			s.boots = append(s.boots, boot)
		}
	}
	return nil
}
