package proxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"allotment/gateway"
)

func TestRates(t *testing.T) {
	r := newRates(Rate{Every: time.Second, Burst: 3})
	now := time.Unix(1000, 0)
	ann, bob := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/64")
	for i := range 3 {
		if wait := r.take(ann, now); wait != 0 {
			t.Errorf("%d waits %v", i, wait)
		}
	}
	if wait := r.take(ann, now); wait != time.Second {
		t.Errorf("the fourth at once waits %v", wait)
	}
	if wait := r.take(bob, now); wait != 0 {
		t.Errorf("somebody else waits %v", wait)
	}
	if wait := r.take(ann, now.Add(time.Second)); wait != 0 {
		t.Errorf("a second later it waits %v", wait)
	}
	if wait := r.take(ann, now.Add(time.Second)); wait == 0 {
		t.Error("refused ones count for nothing, and one second gives two places")
	}
}

func TestRatesAreBounded(t *testing.T) {
	r := newRates(Rate{Every: time.Second, Burst: 3})
	now := time.Unix(1000, 0)
	for i := range 3 * mostClients {
		r.take(netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1}), 32), now)
	}
	if len(r.full) > mostClients {
		t.Errorf("%d clients", len(r.full))
	}
}

// TestGuessesAreSlow: pages are free for far more requests than what could be guesses.
func TestGuessesAreSlow(t *testing.T) {
	limits := DefaultLimits()
	limits.Guesses = Rate{Every: time.Hour, Burst: 2}
	limits.Requests = Rate{Every: time.Hour, Burst: 20}
	c := gateway.Config{Portal: portalAt(t, say("portal")), Routes: []gateway.Route{
		{Path: "/", Target: module(t, say("web")), Ready: true}}}
	var got []string
	addr, _ := serve(t, c, limits)
	for _, path := range []string{
		"POST /portal/login", "POST /wp-login.php", "POST /portal/login", "POST /portal/oidc/token", "POST /comments",
		"GET /portal/login",
	} {
		method, path, _ := strings.Cut(path, " ")
		r, err := http.NewRequest(method, "http://"+addr+path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		got = append(got, fmt.Sprint(resp.StatusCode))
		if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
			t.Error("nothing says when to come again")
		}
	}
	if s := strings.Join(got, " "); s != "200 200 429 200 200 200" {
		t.Error(s)
	}
	for range 20 {
		get(t, addr, "/")
	}
	if status, _, _ := get(t, addr, "/"); status != http.StatusTooManyRequests {
		t.Errorf("after 20 requests: %d", status)
	}
	if status, _, _ := get(t, addr, gateway.HealthPath); status != http.StatusOK {
		t.Errorf("the supervisor's question: %d", status)
	}
}
