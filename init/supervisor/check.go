package supervisor

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

	"allotment/image"
)

const (
	checkEvery = 250 * time.Millisecond
	checkEach  = 5 * time.Second // for one attempt
)

// awaitReady asks until the check passes, its time is over, or ctx ends.
func awaitReady(ctx context.Context, c image.Check, at netip.Addr) error {
	ask := attempt(c, at)
	if ask == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Timeout)*time.Second)
	defer cancel()
	pause := time.NewTicker(checkEvery)
	defer pause.Stop()
	last := errors.New("no answer in time")
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() { // which would hide why earlier attempts failed
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready within %d s: %w", c.Timeout, last)
		case <-pause.C:
		}
	}
}

// attempt is the question that a check asks once; nil if it asks none.
func attempt(c image.Check, at netip.Addr) func(context.Context) error {
	switch {
	case c.HTTP != "":
		port, path, _ := strings.Cut(strings.TrimPrefix(c.HTTP, ":"), "/")
		url := "http://" + net.JoinHostPort(at.String(), port) + "/" + path
		return func(ctx context.Context) error { return askHTTP(ctx, url) }
	case c.TCP != 0:
		address := net.JoinHostPort(at.String(), strconv.Itoa(c.TCP))
		return func(ctx context.Context) error { return askTCP(ctx, address) }
	}
	return nil
}

func askTCP(ctx context.Context, address string) error {
	d := net.Dialer{Timeout: checkEach}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// askHTTP passes on the statuses 200 to 399; a redirection is an answer and is not followed.
func askHTTP(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, checkEach)
	defer cancel()
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
