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

// smallFile is a file of 1 KB that the web server sends by itself.
const smallFile = "/wp-includes/blocks/spacer/editor.css"

var loads = []load{
	{"HTTP, page", "GET of WordPress's first page, made by PHP and MariaDB, 2 connections kept alive", 30, openHTTP("/", 2)},
	{"HTTP, small file", "the worst case: GET of a static file of 1 KB, 8 connections kept alive", 1500, openHTTP(smallFile, 8)},
	{"LDAP, portal", "what the portal looks up for a member: the person, by name and by address, and all groups, 4 connections", 200,
		openPortal},
	{"LDAP, search", "search of one person by uid, 4 connections", 1500, openLDAP},
	{"XMPP", "message to another account, TLS, 8 pairs of 2 under way, not archived", 600, openXMPP(false)},
	{"XMPP, archived", "the same, archived for both", 96, openXMPP(true)},
}

// cost is what some requests took.
type cost struct {
	wall, cpu    time.Duration // cpu of the QEMU process
	instructions int64         // of the guest's processor
	atRest       float64       // instructions of the guest's processor per second without any request
	requests     int
}

func (c cost) cpuEach() float64          { return c.cpu.Seconds() / float64(c.requests) }
func (c cost) wallEach() float64         { return c.wall.Seconds() / float64(c.requests) }
func (c cost) rest() float64             { return c.atRest }
func (c cost) instructionsEach() float64 { return float64(c.instructions) / float64(c.requests) }

// ownEach are the instructions without those that the machine would have done meanwhile at rest.
func (c cost) ownEach() float64 { return c.instructionsEach() - c.atRest*c.wallEach() }

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
		if err := errors.Join(ours.rest(ctx), native.rest(ctx)); err != nil {
			step.Done(err)
			return nil, fmt.Errorf("cannot measure machines at rest: %w", err)
		}
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
	c.atRest = m.atRest
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
	return c.since(before, requests), err
}

// since is what the requests took if before was the clock when they began.
func (c cost) since(before cost, requests int) cost {
	return cost{wall: c.wall - before.wall, cpu: c.cpu - before.cpu, instructions: c.instructions - before.instructions, requests: requests}
}

// restTime is how long a machine is watched while nobody asks it anything.
const restTime = 10 * time.Second

// rest finds out what the machine does when nobody asks it anything.
func (m *machine) rest(ctx context.Context) error {
	if err := m.resume(ctx); err != nil {
		return err
	}
	before, err := m.clock(ctx)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(restTime):
	}
	after, err := m.clock(ctx)
	if err != nil {
		return err
	}
	c := after.since(before, 1)
	m.atRest = float64(c.instructions) / c.wall.Seconds()
	return m.pause(ctx)
}
