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

	"allotment/portal/directory"
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

// httpSession gets one page again and again.
type httpSession struct {
	url       string
	host      string
	workers   int
	client    *http.Client
	transport *http.Transport
}

// openHTTP gets the path by so many connections.
func openHTTP(path string, connections int) func(context.Context, *machine) (session, error) {
	return func(_ context.Context, m *machine) (session, error) {
		t := &http.Transport{MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, DisableCompression: true}
		s := &httpSession{url: "http://" + m.Address(httpPort) + path, host: domain, workers: connections, transport: t}
		s.client = &http.Client{Transport: t}
		return s, nil
	}
}

func (s *httpSession) do(n int) error {
	return share(s.workers, n, func(int) error { return s.get() })
}

func (s *httpSession) get() error {
	request, err := http.NewRequest(http.MethodGet, s.url, nil)
	if err != nil {
		return err
	}
	request.Host = s.host
	answer, err := s.client.Do(request)
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

// portalSession looks up what the portal shows a member who has logged in: the person, whose address it is, and all groups.
type portalSession struct{ clients []*directory.Directory }

func openPortal(ctx context.Context, m *machine) (session, error) {
	s := &portalSession{}
	for range ldapConnections {
		s.clients = append(s.clients, openDirectory(m))
	}
	return s, nil
}

func (s *portalSession) do(n int) error {
	return share(len(s.clients), n, func(w int) error { return s.look(s.clients[w], writer) })
}

func (s *portalSession) look(d *directory.Directory, name string) error {
	ctx := context.Background() // the directory bounds each request
	p, err := d.Person(ctx, name)
	if err != nil {
		return err
	}
	if _, err := d.PersonByMail(ctx, p.Mail); err != nil {
		return err
	}
	groups, err := d.Groups(ctx)
	if err == nil && len(groups) == 0 {
		err = errors.New("there are no groups")
	}
	return err
}

func (s *portalSession) Close() error {
	for _, c := range s.clients {
		c.Close()
	}
	return nil
}
