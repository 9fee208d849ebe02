package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// load is one kind of work.
type load struct {
	name, unit string
	number     int // of requests in one measurement
	open       func(ctx context.Context, m *machine) (session, error)
}

// session is a client that has connected and logged in.
type session interface {
	do(requests int) error // returns when all are answered
	io.Closer
}

var loads = []load{
	{"HTTP", "GET of a file of 1 KB, 8 connections kept alive", 1500, openHTTP},
	{"LDAP", "search of one person by uid, 4 connections", 1500, openLDAP},
	{"XMPP", "message to another account, TLS, 16 under way, not archived", 600, openXMPP(false)},
	{"XMPP, archived", "the same, archived for both", 200, openXMPP(true)},
}

// cost is what some requests took.
type cost struct {
	wall, cpu    time.Duration // cpu of the QEMU process
	instructions int64         // of the guest's processor
	requests     int
}

func (c cost) cpuEach() float64          { return c.cpu.Seconds() / float64(c.requests) }
func (c cost) wallEach() float64         { return c.wall.Seconds() / float64(c.requests) }
func (c cost) instructionsEach() float64 { return float64(c.instructions) / float64(c.requests) }

// clock is what a machine has taken so far.
func (m *machine) clock(ctx context.Context) (c cost, err error) {
	answer, err := m.Execute(ctx, "query-replay", nil) // which counts also when nothing is recorded
	if err != nil {
		return c, err
	}
	var replay struct {
		Icount int64 `json:"icount"`
	}
	err = json.Unmarshal(answer, &replay)
	c.instructions = replay.Icount
	c.wall, c.cpu = m.Clock()
	return c, err
}

// result is what was measured with one load.
type result struct {
	load
	ours, native []cost // by round
}

// measure builds and boots both systems and puts every load on both, in turn, round by round.
func (b *bench) measure(ctx context.Context) ([]result, error) {
	p, l, err := b.modules(ctx)
	if err != nil {
		return nil, err
	}
	peerDisk, err := b.buildNative(ctx, p)
	if err != nil {
		return nil, err
	}
	native, err := b.boot(ctx, "debian", peerDisk)
	if err != nil {
		return nil, err
	}
	defer native.Close()
	disk, err := b.buildOurs(ctx, p, l)
	if err != nil {
		return nil, err
	}
	ours, err := b.boot(ctx, "allotment", disk)
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	return b.inTurn(ctx, ours, native)
}

// inTurn measures. Either system comes first in every other round.
func (b *bench) inTurn(ctx context.Context, ours, native *machine) ([]result, error) {
	results := make([]result, len(loads))
	for round := range b.rounds {
		step := b.progress.Step(fmt.Sprintf("round %d of %d", round+1, b.rounds), 0)
		for i, l := range loads {
			r := &results[i]
			r.load = l
			first, second := ours, native
			if round%2 == 1 {
				first, second = native, ours
			}
			for _, m := range []*machine{first, second} {
				c, err := m.alone(ctx, l)
				if err != nil {
					step.Done(err)
					return nil, fmt.Errorf("cannot measure %s of %s: %w", l.name, m.name, err)
				}
				if m == ours {
					r.ours = append(r.ours, c)
				} else {
					r.native = append(r.native, c)
				}
			}
		}
		step.Done(nil)
	}
	return results, nil
}

// alone measures a load while no other machine runs.
func (m *machine) alone(ctx context.Context, l load) (c cost, err error) {
	if err := m.resume(ctx); err != nil {
		return c, err
	}
	if c, err = m.put(ctx, l, l.number); err != nil {
		return c, err
	}
	if err := m.note(l, c); err != nil {
		return c, err
	}
	return c, m.pause(ctx)
}

// note appends what was measured to a file, for whoever looks closer.
func (m *machine) note(l load, c cost) error {
	f, err := os.OpenFile(m.notes, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s\t%s\t%d\t%.3f\t%.3f\t%d\n", m.name, l.name, c.requests, c.cpu.Seconds(), c.wall.Seconds(), c.instructions)
	return errors.Join(err, f.Close())
}

// put puts a load on a machine: a tenth of the requests so that caches are warm, and then as many as are measured.
func (m *machine) put(ctx context.Context, l load, requests int) (cost, error) {
	var c cost
	s, err := l.open(ctx, m)
	if err != nil {
		return c, err
	}
	defer s.Close()
	if err := s.do(max(requests/10, 1)); err != nil {
		return c, err
	}
	before, err := m.clock(ctx)
	if err != nil {
		return c, err
	}
	if err := s.do(requests); err != nil {
		return c, err
	}
	c, err = m.clock(ctx)
	return cost{c.wall - before.wall, c.cpu - before.cpu, c.instructions - before.instructions, requests}, err
}
