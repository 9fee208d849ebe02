// Package check asks services over the network or in their containers whether they work: once ready, again and again
// while they run, and as the steps of journeys, which do what members do.
package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"allotment/image"
)

const (
	askEvery = 250 * time.Millisecond
	askEach  = 5 * time.Second // for the first attempts at readiness
)

// Question is one attempt of a check: nil is a good answer.
type Question func(context.Context) error

// AwaitReady asks until the answer is good, the check's time is over, or ctx ends. Without a question it is good at once.
func AwaitReady(ctx context.Context, c image.Check, ask Question) error {
	if ask == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Timeout)*time.Second)
	defer cancel()
	pause := time.NewTicker(askEvery)
	defer pause.Stop()
	last := errors.New("no answer in time")
	for each := askEach; ; {
		err := askOnce(ctx, ask, each)
		if err == nil {
			return nil
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			each *= 2 // what takes long would be asked for in vain again and again, each time from its beginning
		} else {
			last = err // a timeout would hide it
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready within %d s: %w", c.Timeout, last)
		case <-pause.C:
		}
	}
}

// AwaitDead asks again and again, and returns why the service counts as dead: nil if ctx ended before that.
func AwaitDead(ctx context.Context, c image.Check, ask Question) error {
	return awaitDead(ctx, time.Duration(c.Every)*time.Second, c, ask)
}

func awaitDead(ctx context.Context, every time.Duration, c image.Check, ask Question) error {
	pause := time.NewTicker(every)
	defer pause.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
		err := askOnce(ctx, ask, time.Duration(c.Timeout)*time.Second)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			failures = 0
			continue
		}
		if failures++; failures >= c.Failures {
			return fmt.Errorf("no answer %d times in a row: %w", failures, err)
		}
	}
}

func askOnce(ctx context.Context, ask Question, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return ask(ctx)
}

// New is what a check asks the service at that address; nil if it asks nothing. Exec runs a command in the service's
// container.
func New(c image.Check, at netip.Addr, exec func(context.Context, []string) error) Question {
	address := func(port int) string { return net.JoinHostPort(at.String(), strconv.Itoa(port)) }
	switch {
	case len(c.Exec) > 0:
		return func(ctx context.Context) error { return exec(ctx, c.Exec) }
	case c.HTTP != "":
		port, path, _ := strings.Cut(strings.TrimPrefix(c.HTTP, ":"), "/")
		url := "http://" + net.JoinHostPort(at.String(), port) + "/" + path
		return func(ctx context.Context) error { return askHTTP(ctx, url) }
	case c.TCP != 0:
		return func(ctx context.Context) error { return askTCP(ctx, address(c.TCP)) }
	case c.LDAP != 0:
		return func(ctx context.Context) error { return askLDAP(ctx, address(c.LDAP)) }
	}
	return nil
}

func askTCP(ctx context.Context, address string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// askHTTP passes on the statuses 200 to 399; a redirection is an answer and is not followed.
func askHTTP(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	t := &http.Transport{DisableKeepAlives: true}
	resp, err := t.RoundTrip(r)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return errors.New("it answers " + resp.Status)
	}
	return nil
}

// askLDAP binds anonymously (RFC 4513, section 5.1.1).
func askLDAP(ctx context.Context, address string) error {
	l, err := dialLDAP(ctx, address)
	if err != nil {
		return err
	}
	defer l.Close()
	return l.UnauthenticatedBind("")
}

// dialLDAP connects to a directory; every request on the connection ends with ctx.
func dialLDAP(ctx context.Context, address string) (*ldap.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if end, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(end); err != nil {
			c.Close()
			return nil, err
		}
	}
	l := ldap.NewConn(c, false)
	l.Start()
	return l, nil
}
