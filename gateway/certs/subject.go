package certs

import (
	"crypto/tls"
	"math/rand/v2"
	"time"
)

// Bounds of the pauses of a subject.
const (
	firstPause = time.Minute    // after an attempt that failed; each further one doubles it
	lastPause  = 6 * time.Hour  // with which it goes on for ever
	askFirst   = 6 * time.Hour  // between questions for the time of renewal, unless the authority says otherwise
	askLast    = 24 * time.Hour // at most
	shortLife  = 10 * 24 * time.Hour
)

// subject is what one publicly trusted certificate is for. Each is renewed alone.
type subject struct {
	names   []string
	file    string   // in the folder, without its ending
	modules []string // that get it

	cert   *tls.Certificate // nil: there is none yet
	record record

	failures int
	retry    time.Time // not before, after a failure
	err      error     // of the last attempt
	busy     bool
}

// record is what is kept of a certificate beside it.
type record struct {
	Renewals int       `json:"renewals"`          // how often the name's certificate was replaced by another
	Start    time.Time `json:"start,omitzero"`    // when the authority suggests to renew it (RFC 9773)
	End      time.Time `json:"end,omitzero"`      //
	Chosen   time.Time `json:"chosen,omitzero"`   // between the two, at random
	AskAgain time.Time `json:"askAgain,omitzero"` // when to ask for these
}

// renewAt is when the certificate is renewed: when the authority suggests it, else when a third of its life is left,
// or half of a life of days. What the authority suggests counts no more when the end is near.
func (s *subject) renewAt() time.Time {
	c := s.cert.Leaf
	life := c.NotAfter.Sub(c.NotBefore)
	left := life / 3
	if life < shortLife {
		left = life / 2
	}
	if at := s.record.Chosen; !at.IsZero() {
		if last := c.NotAfter.Add(-life / 20); at.After(last) {
			return last
		}
		return at
	}
	return c.NotAfter.Add(-left)
}

// due tells whether to try now. A pause that is longer than any comes from a clock that was wrong.
func (s *subject) due(now time.Time) bool {
	return !s.pausing(now) && (s.cert == nil || !now.Before(s.renewAt()))
}

func (s *subject) pausing(now time.Time) bool {
	return now.Before(s.retry) && s.retry.Sub(now) <= 2*lastPause
}

// asks tells whether to ask the authority when to renew.
func (s *subject) asks(now time.Time) bool {
	return s.cert != nil && (!now.Before(s.record.AskAgain) || s.record.AskAgain.Sub(now) > askLast)
}

// failed makes the pause before the next attempt longer.
func (s *subject) failed(err error, now time.Time) {
	pause := min(firstPause<<min(s.failures, 20), lastPause)
	s.failures++
	s.err = err
	s.retry = now.Add(pause + rand.N(pause/4))
}
