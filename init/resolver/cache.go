package resolver

import (
	"container/list"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// How long answers are kept at most, whatever they say themselves, in seconds.
const (
	longestAnswer   = 3600
	longestNegative = 300 // that there is no such record (RFC 2308, 5)
)

// entryOverhead is about what an entry needs besides the message itself, in bytes.
const entryOverhead = 300

// cache keeps answers until their time is over or the room is needed for others; those that were not asked for for the
// longest time go first.
type cache struct {
	room int // bytes
	now  func() time.Time

	mu      sync.Mutex
	used    int
	entries map[question]*list.Element
	recent  *list.List // of *entry, the last used first
}

type entry struct {
	key        question
	wire       []byte
	kept, ends time.Time
}

func (e *entry) size() int { return len(e.wire) + 2*len(e.key.name) + entryOverhead }

func newCache(room int, now func() time.Time) *cache {
	c := &cache{room: room, now: now}
	c.clear()
	return c
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used, c.entries, c.recent = 0, map[question]*list.Element{}, list.New()
}

// put keeps m, if it says that it may be kept.
func (c *cache) put(k question, m *dns.Msg) {
	ttl := lifetime(m)
	wire, err := m.Pack()
	if ttl == 0 || err != nil {
		return
	}
	now := c.now()
	e := &entry{k, wire, now, now.Add(time.Duration(ttl) * time.Second)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(c.entries[k])
	if e.size() > c.room/8 {
		return
	}
	for c.used+e.size() > c.room {
		c.drop(c.recent.Back())
	}
	c.used += e.size()
	c.entries[k] = c.recent.PushFront(e)
}

// drop forgets an element, if there is one. The caller holds the lock.
func (c *cache) drop(at *list.Element) {
	if at == nil {
		return
	}
	e := c.recent.Remove(at).(*entry)
	delete(c.entries, e.key)
	c.used -= e.size()
}

// get returns what is kept, with the lifetimes that are left; nil if there is nothing.
func (c *cache) get(k question) *dns.Msg {
	c.mu.Lock()
	at := c.entries[k]
	now := c.now()
	var e *entry
	if at != nil {
		e = at.Value.(*entry)
		if now.Before(e.kept) || !now.Before(e.ends) { // the clock may have been set
			c.drop(at)
			e = nil
		} else {
			c.recent.MoveToFront(at)
		}
	}
	c.mu.Unlock()
	m := new(dns.Msg)
	if e == nil || m.Unpack(e.wire) != nil {
		return nil
	}
	age := uint32(now.Sub(e.kept) / time.Second)
	each(m, func(h *dns.RR_Header) { h.Ttl -= min(h.Ttl, age) })
	return m
}

// lifetime is how long an answer may be kept, in seconds: as long as all of its records, or as the zone says of what it
// does not have.
func lifetime(m *dns.Msg) uint32 {
	ttl := uint32(longestAnswer)
	if len(m.Answer) == 0 {
		ttl = 0
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				ttl = min(longestNegative, soa.Minttl)
			}
		}
	}
	if m.Rcode != dns.RcodeSuccess { // an alias may lead to a name that does not exist
		ttl = min(ttl, longestNegative)
	}
	each(m, func(h *dns.RR_Header) { ttl = min(ttl, h.Ttl) })
	return ttl
}

// each calls f for every record that has a lifetime.
func each(m *dns.Msg, f func(*dns.RR_Header)) {
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype != dns.TypeOPT {
				f(rr.Header())
			}
		}
	}
}
