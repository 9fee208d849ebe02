package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sync/errgroup"
)

const (
	domain     = "allotment.internal" // of a box whose officers have said nothing yet
	pairs      = 8                    // of connections: each has a rate of its own that it may not go over
	inFlight   = 2                    // messages of a pair that were sent and have not yet arrived
	noArchive  = "<no-store xmlns='urn:xmpp:hints'/>"
	xmppStream = "<?xml version='1.0'?><stream:stream to='" + domain + "' version='1.0' xmlns='jabber:client' " +
		"xmlns:stream='http://etherx.jabber.org/streams'>"
)

// xmppClient is an XMPP client (RFC 6120) that does no more than to log in, send and receive.
type xmppClient struct {
	conn net.Conn
	in   *xml.Decoder
	jid  string // with the resource
}

// dialXMPP connects with TLS from the start (XEP-0368) and logs in. Whose certificate it is makes no difference here.
func dialXMPP(ctx context.Context, address, user, password string) (*xmppClient, error) {
	d := tls.Dialer{Config: &tls.Config{ServerName: domain, InsecureSkipVerify: true, NextProtos: []string{"xmpp-client"}}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &xmppClient{conn: conn}
	if err := c.login(user, password); err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot log in as %q: %w", user, err)
	}
	return c, nil
}

// login authenticates with SASL PLAIN, binds a resource and says that it is there.
func (c *xmppClient) login(user, password string) error {
	if err := c.stream(); err != nil {
		return err
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	var success struct{}
	if err := c.ask("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>"+plain+"</auth>", "success", &success); err != nil {
		return err
	}
	if err := c.stream(); err != nil {
		return err
	}
	var bound struct {
		JID string `xml:"bind>jid"`
	}
	if err := c.ask("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "iq", &bound); err != nil {
		return err
	}
	c.jid = bound.JID
	return c.ask("<presence/>", "presence", &success) // which comes back
}

// stream begins a stream and waits for what the server offers.
func (c *xmppClient) stream() error {
	c.in = xml.NewDecoder(c.conn)
	var features struct{}
	return c.ask(xmppStream, "features", &features)
}

// ask sends something and reads elements until the one called name, into answer.
func (c *xmppClient) ask(text, name string, answer any) error {
	if _, err := c.conn.Write([]byte(text)); err != nil {
		return err
	}
	return c.read(name, answer)
}

// read reads elements until the one called name, into v.
func (c *xmppClient) read(name string, v any) error {
	for {
		t, err := c.in.Token()
		if err != nil {
			return err
		}
		start, ok := t.(xml.StartElement)
		switch {
		case !ok || start.Name.Local == "stream":
		case start.Name.Local == name:
			return c.in.DecodeElement(v, &start)
		case start.Name.Local == "error" || start.Name.Local == "failure":
			var why struct {
				Text string `xml:",innerxml"`
			}
			return errors.Join(fmt.Errorf("the server refuses"), c.in.DecodeElement(&why, &start), errors.New(why.Text))
		default:
			if err := c.in.Skip(); err != nil {
				return err
			}
		}
	}
}

// message is a message (RFC 6121, section 5).
type message struct {
	Type string `xml:"type,attr"`
	Body string `xml:"body"`
}

// xmppSession sends messages from one account to another.
type xmppSession struct {
	from, to *xmppClient
	hint     string
	sent     int
}

// openXMPP logs both in, some times. What is not to be archived says so.
func openXMPP(archived bool) func(context.Context, *machine) (session, error) {
	hint := noArchive
	if archived {
		hint = ""
	}
	return func(ctx context.Context, m *machine) (session, error) {
		var all xmppPairs
		for range pairs {
			from, err := dialXMPP(ctx, m.Address(xmppPort), writer, password)
			if err != nil {
				return nil, errors.Join(err, all.Close())
			}
			to, err := dialXMPP(ctx, m.Address(xmppPort), reader, password)
			if err != nil {
				return nil, errors.Join(err, from.conn.Close(), all.Close())
			}
			all = append(all, &xmppSession{from: from, to: to, hint: hint})
		}
		return all, nil
	}
}

// xmppPairs share out messages among them.
type xmppPairs []*xmppSession

func (p xmppPairs) do(n int) error {
	var g errgroup.Group
	for i, s := range p {
		g.Go(func() error { return s.do((n + i) / len(p)) })
	}
	return g.Wait()
}

func (p xmppPairs) Close() error {
	var errs []error
	for _, s := range p {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// do sends n messages and waits until each has arrived, in their order.
func (s *xmppSession) do(n int) error {
	window := make(chan struct{}, inFlight)
	first := s.sent
	s.sent += n
	g, ctx := errgroup.WithContext(context.Background())
	g.Go(func() error {
		for i := range n {
			select {
			case window <- struct{}{}:
			case <-ctx.Done(): // the receiver has failed
				return nil
			}
			_, err := fmt.Fprintf(s.from.conn, "<message type='chat' to='%s' id='m%d'><body>Message number %d: shall we meet at the "+
				"allotments on Saturday at ten?</body>%s</message>", s.to.jid, first+i, first+i, s.hint)
			if err != nil {
				return err
			}
		}
		return nil
	})
	g.Go(func() error {
		for i := range n {
			if err := s.receive(first + i); err != nil {
				return err
			}
			<-window
		}
		return nil
	})
	return g.Wait()
}

func (s *xmppSession) receive(number int) error {
	var m message
	if err := s.to.read("message", &m); err != nil {
		return err
	}
	var got int
	if _, err := fmt.Sscanf(m.Body, "Message number %d:", &got); err != nil || got != number {
		return fmt.Errorf("message %q of type %q came in place of number %d", m.Body, m.Type, number)
	}
	return nil
}

func (s *xmppSession) Close() error { return errors.Join(s.from.conn.Close(), s.to.conn.Close()) }
