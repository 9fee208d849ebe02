package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/go-ldap/ldap/v3"
	"golang.org/x/sync/errgroup"
)

// share has workers do n requests together.
func share(workers, n int, do func(worker int) error) error {
	todo := make(chan struct{}, n)
	for range n {
		todo <- struct{}{}
	}
	close(todo)
	var g errgroup.Group
	for w := range workers {
		g.Go(func() error {
			for range todo {
				if err := do(w); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// httpSession gets one file again and again.
type httpSession struct {
	url       string
	client    *http.Client
	transport *http.Transport
}

const httpConnections = 8

func openHTTP(ctx context.Context, m *machine) (session, error) {
	t := &http.Transport{MaxConnsPerHost: httpConnections, MaxIdleConnsPerHost: httpConnections, DisableCompression: true}
	return &httpSession{url: "http://" + m.Address(httpPort) + "/style.css", client: &http.Client{Transport: t}, transport: t}, nil
}

func (s *httpSession) do(n int) error {
	return share(httpConnections, n, func(int) error { return s.get() })
}

func (s *httpSession) get() error {
	answer, err := s.client.Get(s.url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && (answer.StatusCode != http.StatusOK || len(body) == 0) {
		err = fmt.Errorf("cannot get %q: %s, %d bytes", s.url, answer.Status, len(body))
	}
	return err
}

func (s *httpSession) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// ldapSession looks for one person after the other.
type ldapSession struct{ conns []*ldap.Conn }

const ldapConnections = 4

func openLDAP(ctx context.Context, m *machine) (session, error) {
	s := &ldapSession{}
	for range ldapConnections {
		var d net.Dialer
		raw, err := d.DialContext(ctx, "tcp", m.Address(ldapPort))
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		c := ldap.NewConn(raw, false)
		c.Start()
		s.conns = append(s.conns, c)
		if err := c.Bind("cn=portal,ou=services,o=organisation", portalPassword); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

func (s *ldapSession) do(n int) error {
	next := make([]int, len(s.conns))
	return share(len(s.conns), n, func(w int) error {
		next[w]++
		return search(s.conns[w], fmt.Sprintf("member%02d", 2+next[w]%(people-2)))
	})
}

func search(c *ldap.Conn, uid string) error {
	r, err := c.Search(ldap.NewSearchRequest("ou=people,o=organisation", ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 2, 0, false,
		"(uid="+uid+")", []string{"uid", "cn", "mail"}, nil))
	if err == nil && (len(r.Entries) != 1 || r.Entries[0].GetAttributeValue("uid") != uid) {
		err = fmt.Errorf("cannot find %q alone: %d entries", uid, len(r.Entries))
	}
	return err
}

func (s *ldapSession) Close() error {
	for _, c := range s.conns {
		c.Close()
	}
	return nil
}
