package certs

import (
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"allotment/gateway"
)

// Bounds of the questions for the time of renewal, and of lives.
const (
	askFirst  = 6 * time.Hour  // between them, unless the authority says otherwise
	askLast   = 24 * time.Hour // at most
	shortLife = 10 * 24 * time.Hour
)

// pace is how attempts follow each other after failures: each pause is twice as long as the one before, and they go on with
// the last one for ever.
type pace struct{ first, last time.Duration }

// Let's Encrypt takes five failed validations of a name in an hour, and in the long run one a day, after a credit of 1152, and
// an attempt can make two, one for each type of challenge.
var (
	usual   = pace{time.Minute, 6 * time.Hour}
	refused = pace{30 * time.Minute, 12 * time.Hour} // the authority has said no
	unseen  = pace{time.Minute, 10 * time.Minute}    // the name does not lead here yet, and the authority was not asked
	longest = refused.last
)

// paceOf is the pace after an attempt that failed so.
func paceOf(err error) pace {
	var p acme.Problem
	switch {
	case errors.Is(err, errLeadsElsewhere):
		return unseen
	case errors.As(err, &p) && p.Status < http.StatusInternalServerError &&
		p.Type != acme.ProblemTypeAccountDoesNotExist && p.Type != acme.ProblemTypeBadNonce: // both of the moment
		return refused
	}
	return usual
}

// whyOf is the kind of an attempt's failure. What the authority saw when it looked is in the types of RFC 8555, section 6.7.
func whyOf(err error) string {
	var p acme.Problem
	switch {
	case errors.Is(err, errLeadsElsewhere):
		return gateway.WhyElsewhere
	case errors.Is(err, errNoAddresses):
		return gateway.WhyRefused
	case !errors.As(err, &p) || p.Status >= http.StatusInternalServerError:
		return gateway.WhyAway
	}
	switch p.Type {
	case acme.ProblemTypeDNS, acme.ProblemTypeUnauthorized, acme.ProblemTypeIncorrectResponse: // somebody else answered
		return gateway.WhyElsewhere
	case acme.ProblemTypeConnection, acme.ProblemTypeTLS:
		return gateway.WhyUnreached
	case acme.ProblemTypeCAA:
		return gateway.WhyForbidden
	case acme.ProblemTypeRateLimited:
		return gateway.WhyOften
	case acme.ProblemTypeServerInternal, acme.ProblemTypeBadNonce, acme.ProblemTypeAccountDoesNotExist: // of the moment
		return gateway.WhyAway
	}
	return gateway.WhyRefused
}

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
	return now.Before(s.retry) && s.retry.Sub(now) <= 2*longest
}

// asks tells whether to ask the authority when to renew.
func (s *subject) asks(now time.Time) bool {
	return s.cert != nil && (!now.Before(s.record.AskAgain) || s.record.AskAgain.Sub(now) > askLast)
}

// failed makes the pause before the next attempt longer.
func (s *subject) failed(err error, now time.Time) {
	p := paceOf(err)
	pause := min(p.first<<min(s.failures, 20), p.last)
	s.failures++
	s.err = err
	s.retry = now.Add(pause + rand.N(pause/4))
}

// keepPauses takes over from before what has failed: another configuration is no reason to ask the authority more often.
func keepPauses(all, before []*subject) {
	for _, s := range all {
		i := slices.IndexFunc(before, func(b *subject) bool { return slices.Equal(b.names, s.names) })
		if i >= 0 {
			s.failures, s.retry, s.err = before[i].failures, before[i].retry, before[i].err
		}
	}
}
