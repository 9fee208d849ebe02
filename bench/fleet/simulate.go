package main

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"allotment/image"
	"allotment/updater/schedule"
)

// checkEvery is how often a device asks, a quarter more or less, as the updater's daemon does.
const checkEvery = 4 * time.Hour

// step is the time over which load is counted.
const step = time.Minute

// before and after are how long is looked at around the wave.
const (
	before = 12 * time.Hour
	after  = 48 * time.Hour
)

// waves are those of the publisher.
var waves = []image.Wave{{Kind: "default", Hours: 72}, {Kind: "fast", Hours: 12}, {Kind: "emergency"}}

// start is when the releases are published: a Monday, at noon for all devices.
var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// load is what happens in a step.
type load struct {
	requests, bytes  int64
	fetched, restart int64 // devices
}

// fleet is what happened with a release.
type fleet struct {
	wave    image.Wave
	devices int
	steps   []load // from start-before
}

// simulate lets all devices check, fetch from their turn on, and restart when they are due. All have the same time zone: where
// they have not, the nights spread what there is.
func simulate(devices int, wave image.Wave, c costs) fleet {
	wave.Start = start.Unix()
	span := before + time.Duration(wave.Hours)*time.Hour + after
	f := fleet{wave, devices, make([]load, span/step)}
	random := rand.New(rand.NewPCG(1, uint64(devices)))
	digest := image.Digest("sha256:" + wave.Kind)
	seed := make([]byte, 16)
	for n := range devices {
		binary.BigEndian.PutUint64(seed, uint64(n))
		f.device(random, seed, digest, c)
	}
	return f
}

// device adds what one device does.
func (f *fleet) device(random *rand.Rand, seed []byte, digest image.Digest, c costs) {
	noticed := false
	upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d))) }
	for t := upTo(checkEvery); ; t += checkEvery*3/4 + upTo(checkEvery/2) {
		now := start.Add(t - before)
		if now.Before(start) || noticed {
			if !f.add(now, c.idle, load{}) {
				return
			}
			continue
		}
		noticed = true
		f.add(now, c.notice, load{})
		have := now
		if turn := schedule.Turn(f.wave, seed, digest); turn.After(now) {
			have = turn
		}
		f.add(have, c.fetch, load{fetched: 1})
		if due, _ := schedule.Due(schedule.Policy{}, f.wave, seed, digest, have, time.UTC); due.After(have) {
			have = due
		}
		f.add(have, cost{}, load{restart: 1})
	}
}

// add counts, unless it is too late to be looked at.
func (f *fleet) add(at time.Time, c cost, l load) bool {
	i := int(at.Sub(start.Add(-before)) / step)
	if i >= len(f.steps) {
		return false
	}
	f.steps[i].requests += c.requests
	f.steps[i].bytes += c.sent
	f.steps[i].fetched += l.fetched
	f.steps[i].restart += l.restart
	return true
}

// between sums up the time from one to another after the publication, and finds the greatest step in it.
func (f *fleet) between(from, to time.Duration) (sum, most load) {
	for _, s := range f.steps[(from+before)/step : min(int((to+before)/step), len(f.steps))] {
		sum.requests += s.requests
		sum.bytes += s.bytes
		sum.fetched += s.fetched
		sum.restart += s.restart
		most.requests = max(most.requests, s.requests)
		most.bytes = max(most.bytes, s.bytes)
	}
	return sum, most
}
