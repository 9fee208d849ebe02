package login

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// How wrong tries are slowed down. The directory locks an account for five minutes after ten wrong passwords in a
// quarter of an hour, whoever made them; strangers must not come to that, so they get eight at most here.
var (
	accountRule = rule{free: 4, first: 30 * time.Second, most: 15 * time.Minute}
	addressRule = rule{free: 20, first: time.Second, most: time.Minute}
)

// mostCounts bounds the memory of a throttle.
const mostCounts = 20_000

// rule says how long to wait after wrong tries: not after the first few, then twice as long after each.
type rule struct {
	free        int
	first, most time.Duration
}

func (r rule) wait(wrong int) time.Duration {
	if wrong < r.free {
		return 0
	}
	return min(r.first<<min(wrong-r.free, 20), r.most)
}

// count is the wrong tries for one key.
type count struct {
	wrong int
	last  time.Time
	rule  rule
}

// until is when the next try may be made. A clock that is put back makes nobody wait for longer.
func (c count) until(now time.Time) time.Time {
	wait := c.rule.wait(c.wrong)
	if wait == 0 {
		return time.Time{}
	}
	if c.last.After(now) {
		c.last = now
	}
	return c.last.Add(wait)
}

// over says whether the count has been without a try for so long that it starts anew.
func (c count) over(now time.Time) bool {
	return now.Sub(c.last).Abs() > c.rule.wait(c.wrong)+2*c.rule.most
}

// throttle counts wrong tries: for each account those of browsers that she has never logged in with, and of those that
// she has, so that strangers cannot keep her out; and for each address of a client.
type throttle struct {
	now func() time.Time

	mu     sync.Mutex
	counts map[string]count
}

func newThrottle(now func() time.Time) *throttle {
	return &throttle{now: now, counts: map[string]count{}}
}

// try is one guess. It counts as wrong from the beginning, so that many at once are not more than many in a row.
type try struct {
	t       *throttle
	account string
	address string
}

// begin counts a guess, or says that it is too early for one: for an account that is not there just the same.
func (t *throttle) begin(name string, known bool, client string) (try, error) {
	g := try{t, "account " + name, "address " + network(client)}
	if known {
		g.account = "known " + name
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	until := t.counts[g.account].until(now)
	if u := t.counts[g.address].until(now); u.After(until) {
		until = u
	}
	if now.Before(until) {
		return try{}, &WaitError{until}
	}
	t.add(g.account, accountRule, now)
	t.add(g.address, addressRule, now)
	return g, nil
}

// count counts what is not a guess, and may be done as often as a rule says; or says that it is too early.
func (t *throttle) count(key string, r rule) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if until := t.counts[key].until(now); now.Before(until) {
		return &WaitError{until}
	}
	t.add(key, r, now)
	return nil
}

// forgive forgets the wrong tries of strangers for an account.
func (t *throttle) forgive(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.counts, "account "+name)
}

func (t *throttle) add(key string, r rule, now time.Time) {
	c := t.counts[key]
	if c.over(now) {
		c = count{}
	}
	if c.wrong == 0 && len(t.counts) >= mostCounts {
		t.makeRoom(now)
	}
	t.counts[key] = count{c.wrong + 1, now, r}
}

// makeRoom forgets what is over, or else the half that waits for least.
func (t *throttle) makeRoom(now time.Time) {
	type entry struct {
		key   string
		until time.Time
	}
	var all []entry
	for key, c := range t.counts {
		if c.over(now) {
			delete(t.counts, key)
		} else {
			all = append(all, entry{key, c.until(now)})
		}
	}
	if len(all) < mostCounts/2 {
		return
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Or(a.until.Compare(b.until), cmp.Compare(a.key, b.key)) })
	for _, e := range all[:len(all)/2] {
		delete(t.counts, e.key)
	}
}

// right says that the guess was right: the account begins anew. The address does not, or else somebody with an account
// of his own could go on for ever with those of others.
func (g try) right() {
	g.t.mu.Lock()
	defer g.t.mu.Unlock()
	delete(g.t.counts, g.account)
	g.t.takeBack(g.address)
}

// forget says that nothing came of the guess.
func (g try) forget() {
	g.t.mu.Lock()
	defer g.t.mu.Unlock()
	g.t.takeBack(g.account)
	g.t.takeBack(g.address)
}

func (t *throttle) takeBack(key string) {
	c, ok := t.counts[key]
	if c.wrong--; ok && c.wrong > 0 {
		t.counts[key] = c
	} else {
		delete(t.counts, key)
	}
}

// network is what one client commands: an IPv4 address, or a whole /64 of IPv6.
func network(client string) string {
	a, err := netip.ParseAddr(client)
	if err != nil || a.Unmap().Is4() {
		return client
	}
	p, err := a.Prefix(64)
	if err != nil {
		return client
	}
	return p.String()
}
