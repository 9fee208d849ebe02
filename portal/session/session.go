// Package session keeps which browsers are logged in. A browser has a random token in a cookie, the database a hash of
// it, bound to the host name that the cookie was set for. Other host names of the same login have tokens of their own.
package session

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"allotment/portal/store"
)

// How strong a login was.
const (
	Password = "password"
	Passkey  = "passkey"
	TOTP     = "totp"    // a password, and a code of an authenticator app
	Printed  = "printed" // a password, and a printed code
	Officer  = "officer" // a code that an officer made
)

// How long things last.
const (
	Idle       = 14 * 24 * time.Hour // a session that is not used
	Absolute   = 90 * 24 * time.Hour // a session, from its last login
	PowersIdle = 12 * time.Hour      // an officer's powers in a session that is not used
	FreshFor   = 10 * time.Minute    // what a login allows without another

	seenEvery     = time.Minute // that often it is written when a session was used
	mostPerPerson = 50
	mostHosts     = 32
)

// ErrNone says that a browser is not logged in, or not any more.
var ErrNone = errors.New("not logged in")

// Session is a login of a person in a browser.
type Session struct {
	ID       string    `json:"id"` // of this package's making; holds no secret
	Person   string    `json:"person"`
	Created  time.Time `json:"created"`
	Seen     time.Time `json:"seen"` // when it was used last, to a minute
	Expires  time.Time `json:"expires"`
	Fresh    time.Time `json:"fresh"`   // until then a dangerous action needs no new login
	Powers   time.Time `json:"powers"`  // until then it has the powers of the person's offices
	Device   string    `json:"device"`  // such as "Safari, iPad"
	Address  string    `json:"address"` // of the client at the last login
	Strength string    `json:"strength"`
}

// record is a session as it is stored. Its key is its ID, which begins with the person's name and separator.
type record struct {
	Session
	Tokens []string `json:"tokens"` // hashes: the first is that of the host name of the login
}

// separator is in no person's name, and needs no escape in a URL (RFC 3986 section 2.3).
const separator = "~"

// token is what a cookie's value stands for. Its key is the value's hash.
type token struct {
	Session string `json:"session"`
	Host    string `json:"host"` // the only host name where it is good
}

var (
	records = store.NewBucket[record]("sessions")
	tokens  = store.NewBucket[token]("session-tokens")
)

// Sessions are all sessions of the portal.
type Sessions struct {
	db     *store.DB
	now    func() time.Time
	secure func() bool
	ended  chan struct{}
}

// New is the sessions in db. secure says whether visitors come by HTTPS, which the cookie's name and marks depend on.
func New(db *store.DB, now func() time.Time, secure func() bool) *Sessions {
	return &Sessions{db, now, secure, make(chan struct{}, 1)}
}

// Ended gets a value soon after sessions have ended, one for several if nobody waits.
func (s *Sessions) Ended() <-chan struct{} { return s.ended }

func (s *Sessions) tellEnded() {
	select {
	case s.ended <- struct{}{}:
	default:
	}
}

// Begin logs person in at the browser of r, with a new cookie each time: a cookie from before the login is worth
// nothing after it. If she was logged in there already, her session goes on; anybody else's ends.
func (s *Sessions) Begin(w http.ResponseWriter, r *http.Request, person, strength string) (Session, error) {
	value, now, host := newSecret(), s.now().UTC(), Host(r.Host)
	var rec record
	err := s.db.Update(func(tx *store.Tx) error {
		former, err := s.find(tx, r, host)
		if err != nil && !errors.Is(err, ErrNone) {
			return err
		}
		rec = record{Session: Session{ID: person + separator + newSecret()[:16], Person: person, Created: now}}
		if err == nil && former.Person == person {
			rec = former
			err = tokens.Delete(tx, hash(s.cookie(r)))
			rec.Tokens = slices.DeleteFunc(rec.Tokens, func(h string) bool { return h == hash(s.cookie(r)) })
		} else if err == nil {
			err = remove(tx, former)
		}
		if err != nil && !errors.Is(err, ErrNone) {
			return err
		}
		rec.Seen, rec.Expires, rec.Fresh, rec.Powers = now, now.Add(Absolute), now.Add(FreshFor), now.Add(PowersIdle)
		rec.Device, rec.Address, rec.Strength = Device(r.UserAgent()), Client(r), strength
		rec.Tokens = append([]string{hash(value)}, rec.Tokens...)
		return errors.Join(s.limit(tx, person), tokens.Put(tx, hash(value), token{rec.ID, host}), records.Put(tx, rec.ID, rec))
	})
	if err != nil {
		return Session{}, fmt.Errorf("cannot begin a session of %q: %w", person, err)
	}
	s.tellEnded()
	s.SetCookie(w, value)
	return rec.Session, nil
}

// limit makes room for one more session of person: what has expired goes, then what was not used for longest.
func (s *Sessions) limit(tx *store.Tx, person string) error {
	all, err := s.of(tx, person)
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b record) int { return b.Seen.Compare(a.Seen) })
	for i, rec := range all {
		if i >= mostPerPerson-1 || s.expired(rec.Session) {
			if err := remove(tx, rec); err != nil {
				return err
			}
		}
	}
	return nil
}

// Find is the session of the browser of r at the host name that it asks. ErrNone: it is not logged in.
func (s *Sessions) Find(r *http.Request) (Session, error) { return s.FindAt(r, r.Host) }

// FindAt is the session of the browser of r at the host name that it asked somebody else, who passes its cookies on.
func (s *Sessions) FindAt(r *http.Request, host string) (Session, error) {
	var rec record
	err := s.db.View(func(tx *store.Tx) (err error) {
		rec, err = s.find(tx, r, Host(host))
		return err
	})
	if err != nil {
		return Session{}, err
	}
	return s.touch(rec.Session)
}

// Get is the session with an ID. ErrNone: it has ended.
func (s *Sessions) Get(id string) (Session, error) {
	var rec record
	err := s.db.View(func(tx *store.Tx) (err error) {
		rec, err = s.get(tx, id)
		return err
	})
	return rec.Session, err
}

func (s *Sessions) get(tx *store.Tx, id string) (record, error) {
	rec, err := records.Get(tx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && s.expired(rec.Session) {
		return record{}, ErrNone
	}
	return rec, err
}

func (s *Sessions) find(tx *store.Tx, r *http.Request, host string) (record, error) {
	value := s.cookie(r)
	if value == "" {
		return record{}, ErrNone
	}
	t, err := tokens.Get(tx, hash(value))
	if errors.Is(err, store.ErrNotFound) || err == nil && t.Host != host {
		return record{}, ErrNone
	}
	if err != nil {
		return record{}, err
	}
	return s.get(tx, t.Session)
}

// touch writes that a session is used, unless that was written a short time ago.
func (s *Sessions) touch(found Session) (Session, error) {
	now := s.now().UTC()
	if now.Sub(found.Seen).Abs() < seenEvery {
		return found, nil
	}
	err := s.db.Update(func(tx *store.Tx) error {
		rec, err := s.get(tx, found.ID)
		if err != nil {
			return err
		}
		rec.Seen = now
		if now.Before(rec.Powers) {
			rec.Powers = now.Add(PowersIdle)
		}
		found = rec.Session
		return records.Put(tx, rec.ID, rec)
	})
	return found, err
}

// expired says whether a session has ended by time. A session of the future is one that a wrong clock made.
func (s *Sessions) expired(f Session) bool {
	now := s.now()
	return now.After(f.Expires) || now.Sub(f.Seen) > Idle || f.Expires.Sub(now) > 2*Absolute
}

// List is all sessions of a person, the one that was used last first.
func (s *Sessions) List(person string) ([]Session, error) {
	var all []record
	err := s.db.View(func(tx *store.Tx) (err error) {
		all, err = s.of(tx, person)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list the sessions of %q: %w", person, err)
	}
	var found []Session
	for _, rec := range all {
		if !s.expired(rec.Session) {
			found = append(found, rec.Session)
		}
	}
	slices.SortFunc(found, func(a, b Session) int { return b.Seen.Compare(a.Seen) })
	return found, nil
}

// People are those who have sessions.
func (s *Sessions) People() ([]string, error) {
	var names []string
	err := s.db.View(func(tx *store.Tx) error {
		return records.All(tx, "", func(_ string, rec record) bool { // sorted by person
			if len(names) == 0 || names[len(names)-1] != rec.Person {
				names = append(names, rec.Person)
			}
			return true
		})
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list who has sessions: %w", err)
	}
	return names, nil
}

func (s *Sessions) of(tx *store.Tx, person string) (found []record, err error) {
	err = records.All(tx, person+separator, func(_ string, rec record) bool {
		found = append(found, rec)
		return true
	})
	return found, err
}

// End ends the session with an ID, if it goes on. Whose it is, is the caller's to check.
func (s *Sessions) End(id string) error {
	return s.end(func(rec record) bool { return rec.ID == id }, id)
}

// EndAll ends all sessions of a person.
func (s *Sessions) EndAll(person string) error {
	return s.end(func(record) bool { return true }, person+separator)
}

// EndOthers ends all sessions of a person but the one with an ID.
func (s *Sessions) EndOthers(person, id string) error {
	return s.end(func(rec record) bool { return rec.ID != id }, person+separator)
}

// Sweep removes what has expired.
func (s *Sessions) Sweep() error {
	return s.end(func(rec record) bool { return s.expired(rec.Session) }, "")
}

func (s *Sessions) end(which func(record) bool, prefix string) error {
	some := false
	err := s.db.Update(func(tx *store.Tx) error {
		var failed error
		err := records.All(tx, prefix, func(_ string, rec record) bool {
			if which(rec) {
				some, failed = true, remove(tx, rec)
			}
			return failed == nil
		})
		return errors.Join(err, failed)
	})
	if err != nil {
		return fmt.Errorf("cannot end sessions: %w", err)
	}
	if some {
		s.tellEnded()
	}
	return nil
}

func remove(tx *store.Tx, rec record) error {
	for _, h := range rec.Tokens {
		if err := tokens.Delete(tx, h); err != nil {
			return err
		}
	}
	return records.Delete(tx, rec.ID)
}

// Pass makes a token for a session at another host name: what its cookie there is to hold.
func (s *Sessions) Pass(id, host string) (value string, err error) {
	value = newSecret()
	err = s.db.Update(func(tx *store.Tx) error {
		rec, err := s.get(tx, id)
		if err != nil {
			return err
		}
		for len(rec.Tokens) > mostHosts { // the first stays: that of the login
			if err := tokens.Delete(tx, rec.Tokens[1]); err != nil {
				return err
			}
			rec.Tokens = slices.Delete(rec.Tokens, 1, 2)
		}
		rec.Tokens = append(rec.Tokens, hash(value))
		return errors.Join(tokens.Put(tx, hash(value), token{id, Host(host)}), records.Put(tx, id, rec))
	})
	if err != nil {
		return "", fmt.Errorf("cannot pass a session on to %q: %w", host, err)
	}
	return value, nil
}

// TokenID names the token in the cookie of r without telling it.
func (s *Sessions) TokenID(r *http.Request) string { return hash(s.cookie(r)) }

// Alive says whether the token with an ID, and its session, are good still.
func (s *Sessions) Alive(tokenID string) (bool, error) {
	err := s.db.View(func(tx *store.Tx) error {
		t, err := tokens.Get(tx, tokenID)
		if err == nil {
			_, err = s.get(tx, t.Session)
		}
		return err
	})
	if errors.Is(err, ErrNone) || errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Key is a key of 32 bytes that only this browser's cookie gives: the database does not have what it is made of.
func (s *Sessions) Key(r *http.Request, purpose string) []byte {
	m := hmac.New(sha256.New, []byte(s.cookie(r)))
	m.Write([]byte(purpose))
	return m.Sum(nil)
}

func newSecret() string { return rand.Text() + rand.Text() } // 256 bits

func hash(value string) string {
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:])
}

// Names of the cookie. The prefix __Host- keeps other host names of the domain from setting it (RFC 6265bis 4.1.3.2).
const (
	CookieSecure = "__Host-portal"
	CookiePlain  = "portal"
)

func (s *Sessions) cookieName() string {
	if s.secure() {
		return CookieSecure
	}
	return CookiePlain
}

func (s *Sessions) cookie(r *http.Request) string {
	c, err := r.Cookie(s.cookieName())
	if err != nil {
		return ""
	}
	return c.Value
}

// SetCookie gives a browser the token as the cookie of the host name that it asks.
func (s *Sessions) SetCookie(w http.ResponseWriter, value string) {
	c := http.Cookie{Name: s.cookieName(), Value: value, Path: "/", MaxAge: int(Absolute / time.Second),
		Secure: s.secure(), HttpOnly: true, SameSite: http.SameSiteLaxMode}
	http.SetCookie(w, &c)
}

// ClearCookie takes the cookie of this host name from a browser.
func (s *Sessions) ClearCookie(w http.ResponseWriter) {
	c := http.Cookie{Name: s.cookieName(), Path: "/", MaxAge: -1, Secure: s.secure(), HttpOnly: true,
		SameSite: http.SameSiteLaxMode}
	http.SetCookie(w, &c)
}

// Cookie is whether name is that of this package's cookie, which is no module's business.
func Cookie(name string) bool {
	return strings.EqualFold(name, CookieSecure) || strings.EqualFold(name, CookiePlain)
}
