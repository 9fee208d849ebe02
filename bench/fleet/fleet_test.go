package main

import (
	"testing"
	"time"
)

// The sums of the simulation are those of its devices.
func TestSimulate(t *testing.T) {
	const devices = 5000
	c := costs{idle: cost{requests: 2}, notice: cost{requests: 5}, fetch: cost{requests: 1, sent: 1000}}
	for _, w := range waves {
		f := simulate(devices, w, c)
		sum, most := f.between(-before, time.Duration(len(f.steps))*step-before)
		if sum.fetched != devices || sum.restart != devices || sum.bytes != devices*1000 {
			t.Errorf("%s: %d devices had it, %d restarted, %d bytes", w.Kind, sum.fetched, sum.restart, sum.bytes)
		}
		checks := float64(sum.requests-devices*4) / 2 // four more requests where a release is found and fetched
		hours := (time.Duration(len(f.steps)) * step).Hours()
		if got := checks / devices / hours * checkEvery.Hours(); got < 0.95 || got > 1.05 {
			t.Errorf("%s: a device checks %.2f times in %v", w.Kind, got, checkEvery)
		}
		if most.bytes > sum.bytes || most.bytes == 0 {
			t.Errorf("%s: %d bytes in the busiest minute", w.Kind, most.bytes)
		}
		early, _ := f.between(-before, 0)
		if early.fetched != 0 {
			t.Errorf("%s: %d devices had the release before it was published", w.Kind, early.fetched)
		}
		half, _ := f.between(0, time.Duration(w.Hours)*time.Hour/2)
		if share := float64(half.fetched) / devices; w.Hours >= 72 && (share < 0.47 || share > 0.53) {
			t.Errorf("%s: in half of the wave %.2f of the devices had the release", w.Kind, share)
		}
	}
}

// What is measured is what the client does.
func TestMeasure(t *testing.T) {
	const delta = 100000
	c, err := measure(t.Context(), delta)
	if err != nil {
		t.Fatal(err)
	}
	if c.idle.requests != 2 || c.idle.sent == 0 || c.idle.sent > 2000 {
		t.Errorf("an idle check costs %+v", c.idle)
	}
	if c.fetch.requests != 1 || c.fetch.sent < delta || c.fetch.sent > delta+1000 {
		t.Errorf("the delta costs %+v", c.fetch)
	}
	if c.notice.requests < 4 || c.first.requests < c.notice.requests {
		t.Errorf("a new release costs %+v, the first check %+v", c.notice, c.first)
	}
}
