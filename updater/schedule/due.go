package schedule

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"

	"allotment/image"
)

// Emergency is the kind of wave that does not wait for the maintenance window.
const Emergency = "emergency"

// usual is the window where officers have set none.
var usual = Window{From: "02:00", To: "05:00"}

// maxHours bounds a wave: a year.
const maxHours = 365 * 24

// Turn is when the wave comes to the device with this seed. Over the devices it is uniform from the wave's start to its
// end, and for one device it is another for each release, so that nobody is always the first.
func Turn(wave image.Wave, seed []byte, digest image.Digest) time.Time {
	place, _ := places(seed, digest)
	length := time.Duration(min(max(wave.Hours, 0), maxHours)) * time.Hour
	return time.Unix(wave.Start, 0).Add(share(length, place))
}

// Due says when the device takes the release of this wave and digest: it is due once when is not after now. As long as only
// officers can make it due, when is zero. Why says the same in English, with times in zone.
func Due(p Policy, wave image.Wave, seed []byte, digest image.Digest, now time.Time,
	zone *time.Location) (when time.Time, why string) {
	if p.Now && !now.Before(time.Unix(wave.Start, 0)) {
		return now, "An officer asked for it now."
	}
	if p.Paused {
		return time.Time{}, "Updates are paused until an officer resumes them."
	}
	if p.Metered {
		return time.Time{}, "The connection is metered: updates wait until an officer asks for them."
	}
	turn := Turn(wave, seed, digest)
	if p.DeferUntil.After(turn) {
		turn, why = p.DeferUntil, fmt.Sprintf("Updates are deferred: the earliest time is %s.", say(p.DeferUntil, zone))
	} else {
		why = fmt.Sprintf("The release is given out to one device after another, and this one's turn is %s.", say(turn, zone))
	}
	if wave.Kind == Emergency {
		if !turn.After(now) {
			return turn, "It is an emergency release, which does not wait for the night."
		}
		return turn, why
	}
	_, place := places(seed, digest)
	moment, open := p.Window.next(later(turn, now), turn, place, zone)
	switch {
	case !moment.After(now):
		return moment, "It is due: the maintenance window is open."
	case !turn.After(now):
		why = fmt.Sprintf("It waits for the maintenance window, which opens %s; this device starts %s.",
			say(open, zone), say(moment, zone))
	}
	return moment, why
}

// places are two independent numbers, uniform over the devices: of the wave and of the window.
func places(seed []byte, digest image.Digest) (wave, window uint64) {
	h := sha256.New()
	h.Write(seed)
	h.Write([]byte(digest))
	sum := h.Sum(nil)
	return binary.BigEndian.Uint64(sum), binary.BigEndian.Uint64(sum[8:])
}

// share is place's part of d, where place counts in parts of 2^64.
func share(d time.Duration, place uint64) time.Duration {
	part, _ := bits.Mul64(uint64(d), place)
	return time.Duration(part)
}

// next is the device's moment in the first window that ends after now and has the moment not before turn; and when it opens.
func (w Window) next(now, turn time.Time, place uint64, zone *time.Location) (moment, open time.Time) {
	from, to := w.times()
	year, month, day := now.In(zone).Date()
	for d := day - 1; ; d++ { // a window of yesterday may go over midnight
		over := 0
		if !from.Before(to) {
			over = 1
		}
		open = clock(year, month, d, from, zone)
		end := clock(year, month, d+over, to, zone)
		if !end.After(now) || !end.After(open) { // over, or in an hour that the change to summer time leaves out
			continue
		}
		if moment = open.Add(share(end.Sub(open), place)); !moment.Before(turn) {
			return moment, open
		}
	}
}

// times are the window's ends as times of day. A window that cannot be read is the usual one.
func (w Window) times() (from, to time.Time) {
	from, err := time.Parse("15:04", w.From)
	if err == nil {
		to, err = time.Parse("15:04", w.To)
	}
	if err != nil {
		return usual.times()
	}
	return from, to
}

// clock is when clocks in zone show the time of day first. If they jump over it, it is when they jump.
func clock(year int, month time.Month, day int, at time.Time, zone *time.Location) time.Time {
	t := time.Date(year, month, day, at.Hour(), at.Minute(), 0, 0, zone)
	start, end := t.ZoneBounds()
	switch want, got := minutes(at), minutes(t); {
	case got < want:
		return end
	case got > want:
		return start
	case start.IsZero():
		return t
	}
	_, now := t.Zone()
	_, before := start.Add(-1).Zone()
	if first := t.Add(time.Duration(now-before) * time.Second); first.Before(start) && minutes(first) == minutes(at) {
		return first
	}
	return t
}

func minutes(t time.Time) int { return t.Hour()*60 + t.Minute() }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func say(t time.Time, zone *time.Location) string {
	return t.In(zone).Format("on Monday 2 January at 15:04")
}
