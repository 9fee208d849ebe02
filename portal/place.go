package portal

import (
	"errors"
	"sync"

	"allotment/portal/config"
	"allotment/portal/store"
)

// place knows where the portal can be found while it has no host name of its own: where an officer was last.
type place struct {
	db *store.DB

	mu    sync.Mutex
	known string // what the database says; empty: it has not been asked
}

var places = store.NewBucket[string]("place")

const placeKey = "origin"

// reached remembers that an officer has come by this origin.
func (p *place) reached(origin string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if origin == p.known {
		return nil
	}
	err := p.db.Update(func(tx *store.Tx) error { return places.Put(tx, placeKey, origin) })
	if err == nil {
		p.known = origin
	}
	return err
}

// origin is the scheme and host of links to the portal.
func (p *place) origin(c config.Config) string {
	switch {
	case c.Origin != "":
		return c.Origin
	case p.last() != "":
		return p.last()
	case c.Secure:
		return "https://" + c.Domain
	}
	return "http://" + c.Domain
}

func (p *place) last() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == "" {
		err := p.db.View(func(tx *store.Tx) (err error) {
			p.known, err = places.Get(tx, placeKey)
			return err
		})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return ""
		}
	}
	return p.known
}
