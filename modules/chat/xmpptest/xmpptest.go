// Package xmpptest acts as a member's chat program: XMPP (RFC 6120) over TCP with STARTTLS, SASL PLAIN, the archive
// (XEP-0313), rooms (XEP-0045) and files (XEP-0363). It is made of the standard library alone, so it knows nothing of the
// server. Tests use it with and without a machine.
package xmpptest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Server is where programs connect to.
type Server struct {
	Address  string // host:port for clients with STARTTLS
	Domain   string
	Patience time.Duration // for one answer
}

// Member is a program that is logged in.
type Member struct {
	JID    string // with the resource
	server Server
	conn   net.Conn
	dec    *xml.Decoder
	unread []Stanza // came while something else was awaited
	number int      // of the last IQ
}

// Stanza is a message, presence or IQ.
type Stanza struct {
	XMLName xml.Name
	ID      string `xml:"id,attr"`
	Type    string `xml:"type,attr"`
	From    string `xml:"from,attr"`
	Body    string `xml:"body"`
	Inner   []byte `xml:",innerxml"`
}

// ErrRefused is wrapped by the error of a login with a wrong name or password.
var ErrRefused = errors.New("refused")

// LogIn connects, encrypts, proves who it is, and becomes present. The server's certificate is not checked: a box has one
// of its own until it has a domain.
func LogIn(ctx context.Context, s Server, name, password string) (*Member, error) {
	m := &Member{server: s}
	if err := m.logIn(ctx, name, password); err != nil {
		if m.conn != nil {
			m.conn.Close()
		}
		return nil, fmt.Errorf("cannot log %q in: %w", name, err)
	}
	return m, nil
}

func (m *Member) logIn(ctx context.Context, name, password string) (err error) {
	dialer := net.Dialer{Timeout: m.server.Patience}
	if m.conn, err = dialer.DialContext(ctx, "tcp", m.server.Address); err != nil {
		return err
	}
	if err := m.open(); err != nil {
		return err
	}
	if err := m.exchange("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "proceed"); err != nil {
		return err
	}
	secure := tls.Client(m.conn, &tls.Config{ServerName: m.server.Domain, InsecureSkipVerify: true})
	if err := secure.HandshakeContext(ctx); err != nil {
		return err
	}
	m.conn = secure
	if err := m.open(); err != nil {
		return err
	}
	proof := base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + password))
	err = m.exchange("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>"+proof+"</auth>", "success")
	if err != nil {
		return err
	}
	if err := m.open(); err != nil {
		return err
	}
	answer, err := m.Ask("set", "", "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>")
	if err != nil {
		return err
	}
	var bind struct {
		JID string `xml:"bind>jid"`
	}
	if err := unmarshal(answer.Inner, &bind); err != nil {
		return err
	}
	m.JID = bind.JID
	if err := m.write("<presence/>"); err != nil {
		return err
	}
	// Whoever is present is told of her own presence too (RFC 6121, 4.2.2); from then on messages arrive.
	_, err = m.Await(func(s Stanza) bool { return s.XMLName.Local == "presence" && s.From == m.JID })
	return err
}

// unmarshal reads the children of an element into v.
func unmarshal(inner []byte, v any) error {
	return xml.Unmarshal(slices.Concat([]byte("<all>"), inner, []byte("</all>")), v)
}

// Close ends the connection.
func (m *Member) Close() error { return m.conn.Close() }

func (m *Member) write(text string) error {
	if err := m.conn.SetDeadline(time.Now().Add(m.server.Patience)); err != nil {
		return err
	}
	_, err := io.WriteString(m.conn, text)
	return err
}

// open starts a stream (RFC 6120, 4.2) and reads past the features that the server offers.
func (m *Member) open() error {
	m.dec = xml.NewDecoder(m.conn)
	err := m.write("<?xml version='1.0'?><stream:stream to='" + m.server.Domain +
		"' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>")
	if err != nil {
		return err
	}
	for {
		token, err := m.dec.Token()
		if err != nil {
			return err
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "stream" {
			break
		}
	}
	s, err := m.read()
	if err == nil && s.XMLName.Local != "features" {
		err = fmt.Errorf("%s where features are due: %s", s.XMLName.Local, s.Inner)
	}
	return err
}

// exchange sends something that is no stanza and wants the named element back.
func (m *Member) exchange(text, want string) error {
	if err := m.write(text); err != nil {
		return err
	}
	s, err := m.read()
	switch {
	case err != nil:
		return err
	case s.XMLName.Local == "failure":
		return fmt.Errorf("%w: %s", ErrRefused, s.Inner)
	case s.XMLName.Local != want:
		return fmt.Errorf("%s where %s is due: %s", s.XMLName.Local, want, s.Inner)
	}
	return nil
}

// read reads the next child of the stream.
func (m *Member) read() (Stanza, error) {
	for {
		token, err := m.dec.Token()
		if err != nil {
			return Stanza{}, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			var s Stanza
			err := m.dec.DecodeElement(&s, &t)
			return s, err
		case xml.EndElement:
			return Stanza{}, io.EOF // of the stream
		}
	}
}

// Await returns the first stanza that fits, also of those that came earlier.
func (m *Member) Await(fits func(Stanza) bool) (Stanza, error) {
	if i := slices.IndexFunc(m.unread, fits); i >= 0 {
		s := m.unread[i]
		m.unread = slices.Delete(m.unread, i, i+1)
		return s, nil
	}
	if err := m.conn.SetDeadline(time.Now().Add(m.server.Patience)); err != nil {
		return Stanza{}, err
	}
	for {
		s, err := m.read()
		if err != nil || fits(s) {
			return s, err
		}
		m.unread = append(m.unread, s)
	}
}

// Ask sends an IQ to an address ("": the account's own) and returns the answer.
func (m *Member) Ask(kind, to, payload string) (Stanza, error) {
	m.number++
	id := "q" + strconv.Itoa(m.number)
	if to != "" {
		to = " to='" + to + "'"
	}
	if err := m.write("<iq type='" + kind + "' id='" + id + "'" + to + ">" + payload + "</iq>"); err != nil {
		return Stanza{}, err
	}
	s, err := m.Await(func(s Stanza) bool { return s.XMLName.Local == "iq" && s.ID == id })
	if err == nil && s.Type == "error" {
		err = fmt.Errorf("%w: %s", ErrRefused, s.Inner)
	}
	return s, err
}

// Write sends a message of a kind (chat or groupchat) to an address.
func (m *Member) Write(kind, to, body string) error {
	var text bytes.Buffer
	if err := xml.EscapeText(&text, []byte(body)); err != nil {
		return err
	}
	return m.write("<message type='" + kind + "' to='" + to + "'><body>" + text.String() + "</body></message>")
}

// AwaitMessage waits for a message with this body.
func (m *Member) AwaitMessage(body string) (Stanza, error) {
	return m.Await(func(s Stanza) bool { return s.XMLName.Local == "message" && s.Body == body })
}

// Join enters a room, which is made if there is none of the name, with the server's defaults.
func (m *Member) Join(room, nick string) error {
	if err := m.write("<presence to='" + room + "/" + nick + "'><x xmlns='http://jabber.org/protocol/muc'/></presence>"); err != nil {
		return err
	}
	self, err := m.Await(func(s Stanza) bool { return s.XMLName.Local == "presence" && s.From == room+"/"+nick })
	if err != nil {
		return err
	}
	if self.Type == "error" {
		return fmt.Errorf("%w: %s", ErrRefused, self.Inner)
	}
	if bytes.Contains(self.Inner, []byte(`201`)) { // made just now, and locked until somebody has said how it shall be
		_, err = m.Ask("set", room, "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>")
	}
	return err
}

// History returns the bodies of the messages in the archive of an address ("": the member's own), oldest first.
func (m *Member) History(of string) ([]string, error) {
	_, err := m.Ask("set", of, "<query xmlns='urn:xmpp:mam:2' queryid='h'><set xmlns='http://jabber.org/protocol/rsm'><max>50</max></set></query>")
	if err != nil {
		return nil, err
	}
	var bodies []string
	rest := m.unread[:0]
	for _, s := range m.unread {
		var found struct {
			Body string `xml:"result>forwarded>message>body"`
		}
		if s.XMLName.Local != "message" || unmarshal(s.Inner, &found) != nil || found.Body == "" {
			rest = append(rest, s)
			continue
		}
		bodies = append(bodies, found.Body)
	}
	m.unread = rest
	return bodies, nil
}

// Upload asks for a place for a file, puts it there, and returns its address. Both addresses are taken as below base.
func (m *Member) Upload(ctx context.Context, client *http.Client, base, name string, content []byte) (string, error) {
	answer, err := m.Ask("get", "files."+m.server.Domain,
		fmt.Sprintf("<request xmlns='urn:xmpp:http:upload:0' filename='%s' size='%d'/>", name, len(content)))
	if err != nil {
		return "", err
	}
	var slot struct {
		Put struct {
			URL    string `xml:"url,attr"`
			Header []struct {
				Name  string `xml:"name,attr"`
				Value string `xml:",chardata"`
			} `xml:"header"`
		} `xml:"slot>put"`
		Get struct {
			URL string `xml:"url,attr"`
		} `xml:"slot>get"`
	}
	if err := unmarshal(answer.Inner, &slot); err != nil {
		return "", err
	}
	put, err := below(base, slot.Put.URL)
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, put, bytes.NewReader(content))
	if err != nil {
		return "", err
	}
	for _, h := range slot.Put.Header {
		r.Header.Set(h.Name, strings.TrimSpace(h.Value))
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("cannot put a file at %s: %s", put, resp.Status)
	}
	return below(base, slot.Get.URL)
}

// below is an address with another scheme and host.
func below(base, address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	return base + u.RequestURI(), nil
}
