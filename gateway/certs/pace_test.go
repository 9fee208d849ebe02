package certs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"allotment/gateway"
)

// TestRefusalsAreFew keeps below what Let's Encrypt takes of one name: five failed validations in an hour, and in the long run
// one a day after a credit of 1152. Each order that is refused is one.
func TestRefusalsAreFew(t *testing.T) {
	w := newWorld(t, []string{"club.org"})
	w.mute.Store(true)
	w.configure()
	var orders []time.Time
	for end := w.now().Add(day); w.now().Before(end); w.pass(5 * time.Minute) {
		if w.now().Hour() == 12 && w.now().Minute() < 5 {
			w.config.Names = append(w.config.Names, "box.internal") // another configuration forgets no failure
			w.configure()
		}
		before := w.orders.Load()
		w.look()
		for range w.orders.Load() - before {
			orders = append(orders, w.now())
		}
	}
	for i, at := range orders {
		hour := slices.IndexFunc(orders, func(o time.Time) bool { return at.Sub(o) < time.Hour })
		if n := i - hour + 1; n > 5 {
			t.Errorf("%d orders in the hour before %s", n, at)
		}
	}
	if len(orders) < 10 || len(orders) > 16 {
		t.Errorf("%d orders on the first day", len(orders))
	}
}

// zone is what name servers say.
type zone struct {
	mu   sync.Mutex
	said map[string]string
	err  error
}

func (z *zone) set(name, address string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.said[name] = address
}

func (z *zone) lookup(_ context.Context, name string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	a, err := netip.ParseAddr(z.said[name])
	if err != nil {
		return nil, z.err
	}
	return []netip.Addr{a}, z.err
}

// TestNamesThatLeadElsewhere asks the authority for none of these, but soon after they lead here.
func TestNamesThatLeadElsewhere(t *testing.T) {
	w := newWorld(t, []string{"club.org", "portal.club.org", "www.club.org", "new.org"})
	z := &zone{said: map[string]string{"club.org": "192.0.2.1", "portal.club.org": "192.0.2.1", "www.club.org": "192.0.2.9"}}
	w.config.Lookup, w.config.Domain = z.lookup, "club.org"
	w.configure()
	got := func() (names []string) {
		for _, s := range w.keeper.Status().Certificates {
			if !s.Until.IsZero() {
				names = append(names, s.Names...)
			}
		}
		return names
	}
	w.look()
	if all := got(); !slices.Equal(all, []string{"club.org", "portal.club.org"}) || w.orders.Load() != 2 {
		t.Fatalf("%v have certificates after %d orders", all, w.orders.Load())
	}
	for range 24 {
		w.pass(time.Hour)
		w.look()
	}
	if n := w.orders.Load(); n != 2 {
		t.Errorf("%d orders: the authority was asked for a name that leads elsewhere", n)
	}
	z.set("www.club.org", "192.0.2.1")
	z.set("new.org", "192.0.2.7") // of no domain: where it is to lead, nobody can say
	w.pass(unseen.last + unseen.last/4)
	w.look()
	if all := got(); len(all) != 4 {
		t.Errorf("%v have certificates", all)
	}

	z.err = errors.New("no name server answers")
	before := w.orders.Load()
	w.pass(80 * day)
	if w.look(); w.orders.Load() != before {
		t.Error("the authority was asked although nobody can tell where the names lead")
	}
	z.err = nil
	w.pass(2 * time.Minute)
	if w.look(); w.orders.Load() == before {
		t.Error("the twin: not renewed when the name servers answer again")
	}
}

// TestPrivateAuthority issues for names of inside; the twin is a public authority.
func TestPrivateAuthority(t *testing.T) {
	for _, private := range []bool{true, false} {
		c := Config{Private: private, Names: []string{"club.lan", "portal.club.lan", "box", "192.168.1.7"}}
		if n := len(wanted(c)); n != 2 && private || n != 0 && !private {
			t.Errorf("private %t: %d certificates", private, n)
		}
	}
}

func TestPaceOf(t *testing.T) {
	for kind, want := range map[string]pace{
		acme.ProblemTypeUnauthorized: refused, acme.ProblemTypeRateLimited: refused, acme.ProblemTypeCAA: refused,
		acme.ProblemTypeBadNonce: usual, acme.ProblemTypeAccountDoesNotExist: usual,
	} {
		err := fmt.Errorf("cannot order: %w", acme.Problem{Type: kind, Status: http.StatusForbidden})
		if got := paceOf(err); got != want {
			t.Errorf("%s: %v, want %v", kind, got, want)
		}
	}
	if paceOf(acme.Problem{Status: http.StatusInternalServerError}) != usual || paceOf(io.EOF) != usual || paceOf(errLeadsElsewhere) != unseen {
		t.Error("what is not the authority's no has its pace")
	}
}

// TestWhyOf tells an officer's causes apart; what the real authority says is in TestChallengesMatter and TestAuthorityIsDown.
func TestWhyOf(t *testing.T) {
	for kind, want := range map[string]string{
		acme.ProblemTypeDNS: gateway.WhyElsewhere, acme.ProblemTypeUnauthorized: gateway.WhyElsewhere,
		acme.ProblemTypeConnection: gateway.WhyUnreached, acme.ProblemTypeCAA: gateway.WhyForbidden,
		acme.ProblemTypeRateLimited: gateway.WhyOften, acme.ProblemTypeServerInternal: gateway.WhyAway,
		acme.ProblemTypeRejectedIdentifier: gateway.WhyRefused, "": gateway.WhyRefused,
	} {
		err := fmt.Errorf("cannot order: %w", acme.Problem{Type: kind, Status: http.StatusForbidden})
		if got := whyOf(err); got != want {
			t.Errorf("%q: %s, want %s", kind, got, want)
		}
	}
	for err, want := range map[error]string{
		fmt.Errorf("%w: no address", errLeadsElsewhere):               gateway.WhyElsewhere,
		fmt.Errorf("%w", acme.Problem{Status: http.StatusBadGateway}): gateway.WhyAway,
		io.EOF: gateway.WhyAway, context.DeadlineExceeded: gateway.WhyAway,
	} {
		if got := whyOf(err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}
