package fetch

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Options say how web servers are spoken to. What is zero has the value that is named.
type Options struct {
	Proxy    *url.URL                                         // for all requests; nil: none
	Roots    *x509.CertPool                                   // whom TLS trusts; nil: the system's
	Agent    string                                           // User-Agent; "allot-updater"
	Connect  time.Duration                                    // for a connection, and again for TLS; 20 s
	Headers  time.Duration                                    // until an answer begins; 30 s
	Stall    time.Duration                                    // the longest time without a byte; 30 s
	Speed    int64                                            // bytes per second at the least, over Window; 512
	Window   time.Duration                                    // 2 min
	Rounds   int                                              // through all mirrors without progress until it is given up; 4
	Pause    time.Duration                                    // before the second round, at the most, doubled with each; 4 s
	Patience time.Duration                                    // the longest Retry-After that is obeyed; 5 min
	Random   func() float64                                   // from 0 to less than 1, spreads the pauses; math/rand
	Sleep    func(ctx context.Context, d time.Duration) error // for pauses
}

func (o Options) withDefaults() Options {
	o.Agent = cmp.Or(o.Agent, "allot-updater")
	o.Connect = cmp.Or(o.Connect, 20*time.Second)
	o.Headers = cmp.Or(o.Headers, 30*time.Second)
	o.Stall = cmp.Or(o.Stall, 30*time.Second)
	o.Speed = cmp.Or(o.Speed, 512)
	o.Window = cmp.Or(o.Window, 2*time.Minute)
	o.Rounds = cmp.Or(o.Rounds, 4)
	o.Pause = cmp.Or(o.Pause, 4*time.Second)
	o.Patience = cmp.Or(o.Patience, 5*time.Minute)
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	return o
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// HTTP is the Source of web servers that have the same files below each of urls. The first that works is used; when it
// breaks off, the next continues at that byte.
func HTTP(urls []string, o Options) Source {
	o = o.withDefaults()
	dialer := &net.Dialer{Timeout: o.Connect}
	s := &servers{o: o, client: &http.Client{
		CheckRedirect: redirect,
		Transport: &http.Transport{
			Proxy:                  http.ProxyURL(o.Proxy),
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    o.Connect,
			ResponseHeaderTimeout:  o.Headers,
			MaxResponseHeaderBytes: 64 << 10,
			IdleConnTimeout:        time.Minute,
			MaxIdleConnsPerHost:    1,
			DisableCompression:     true, // digests and ranges are of the bytes as they are stored
			ForceAttemptHTTP2:      true,
		},
	}}
	for _, u := range urls {
		s.mirrors = append(s.mirrors, &mirror{url: strings.TrimSuffix(u, "/") + "/"})
	}
	return s
}

// redirect lets a server send us on, but not from TLS to where anybody can listen.
func redirect(next *http.Request, via []*http.Request) error {
	if len(via) > 5 {
		return errors.New("more than five redirections")
	}
	if via[0].URL.Scheme == "https" && next.URL.Scheme != "https" {
		return fmt.Errorf("redirection from TLS to %q", next.URL.Scheme)
	}
	return nil
}

// Each is the mirrors of a source, the best first, so that what a mirror says as a whole can be judged; or the source
// itself, if it has none.
func Each(s Source) []Source {
	all, ok := s.(*servers)
	if !ok || len(all.mirrors) < 2 {
		return []Source{s}
	}
	var each []Source
	for _, m := range all.order() {
		each = append(each, &servers{o: all.o, client: all.client, mirrors: []*mirror{m}})
	}
	return each
}

// servers is a list of mirrors.
type servers struct {
	o       Options
	client  *http.Client
	mirrors []*mirror
}

// mirror is one web server.
type mirror struct {
	url    string
	faults atomic.Int32 // how often it broke off or gave wrong bytes; those with fewer are asked first
}

// order is the mirrors, the best first.
func (s *servers) order() []*mirror {
	m := slices.Clone(s.mirrors)
	slices.SortStableFunc(m, func(a, b *mirror) int { return int(a.faults.Load() - b.faults.Load()) })
	return m
}

// Get implements Source. No server is asked before the first Read.
func (s *servers) Get(ctx context.Context, path string, from, to int64) (io.ReadCloser, error) {
	if len(s.mirrors) == 0 {
		return nil, errors.New("cannot fetch: there is no address to fetch from")
	}
	if from < 0 || to >= 0 && to < from {
		return nil, fmt.Errorf("cannot fetch bytes %d to %d", from, to)
	}
	return &transfer{s: s, ctx: ctx, path: path, at: from, end: to, whole: to < 0, seen: map[*mirror]string{}}, nil
}
