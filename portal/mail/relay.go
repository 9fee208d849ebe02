package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"allotment/portal/store"
)

// Ways of TLS to a relay.
const (
	StartTLS = "starttls" // RFC 3207, required
	TLS      = "tls"      // RFC 8314 section 3.3
	NoTLS    = "none"     // only for a relay on this machine
)

// Relay is the mail server that takes the organisation's mail. The zero value is none: mail waits.
type Relay struct {
	Host     string `json:"host"`
	Port     int    `json:"port"`
	TLS      string `json:"tls"`  // StartTLS, TLS or NoTLS
	User     string `json:"user"` // empty: without login
	Password string `json:"password"`
	From     string `json:"from"`      // sender's address
	FromName string `json:"from_name"` // such as the organisation's name
}

// Check says what is wrong with a relay's settings; the zero value is right.
func (r Relay) Check() error {
	if r == (Relay{}) {
		return nil
	}
	if _, err := CheckAddress(r.From); err != nil {
		return fmt.Errorf("cannot use the sender: %w", err)
	}
	switch {
	case r.Host == "" || len(r.Host) > 253 || strings.ContainsAny(r.Host, " /@:\\") || hasControl(r.Host):
		return fmt.Errorf("%q is not the name of a mail server", r.Host)
	case r.Port < 1 || r.Port > 65535:
		return fmt.Errorf("port %d is not from 1 to 65535", r.Port)
	case r.TLS != StartTLS && r.TLS != TLS && r.TLS != NoTLS:
		return fmt.Errorf("TLS is %q, not %q, %q or %q", r.TLS, StartTLS, TLS, NoTLS)
	case r.TLS == NoTLS && r.User != "":
		return errors.New("a password is never sent without TLS")
	case hasControl(r.User) || hasControl(r.Password) || hasControl(r.FromName):
		return errors.New("user, password or sender's name have control characters")
	}
	return nil
}

var relays = store.NewBucket[Relay]("mail-relay")

// relayKey is the key of the only value of relays.
const relayKey = "relay"

// SetRelay keeps the relay in the database; see StoredRelay.
func SetRelay(tx *store.Tx, r Relay) error {
	if err := r.Check(); err != nil {
		return fmt.Errorf("cannot use the mail relay: %w", err)
	}
	return relays.Put(tx, relayKey, r)
}

// StoredRelay returns the relay that SetRelay has kept; the zero value if none.
func StoredRelay(db *store.DB) Relay {
	var r Relay
	err := db.View(func(tx *store.Tx) (err error) {
		r, err = relays.Get(tx, relayKey)
		return err
	})
	if err != nil {
		return Relay{}
	}
	return r
}

// connection is a session with a relay, for several messages.
type connection struct {
	client  *gomail.Client
	session *smtp.Client
	raw     net.Conn
	stop    func() bool // ends the wait for the end of the context
}

// connect logs in to the relay. When ctx ends the connection is cut, whatever it waits for; timeout bounds each message.
func connect(ctx context.Context, r Relay, roots *x509.CertPool, timeout time.Duration) (*connection, error) {
	c := &connection{}
	config := &tls.Config{ServerName: r.Host, RootCAs: roots, MinVersion: tls.VersionTLS12}
	options := []gomail.Option{
		gomail.WithPort(r.Port), gomail.WithTimeout(timeout), gomail.WithTLSConfig(config),
		gomail.WithHELO(r.From[strings.LastIndexByte(r.From, '@')+1:]), gomail.WithTLSPolicy(gomail.NoTLS),
		gomail.WithDialContextFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
			var err error
			if r.TLS == TLS {
				c.raw, err = (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
			} else {
				c.raw, err = (&net.Dialer{}).DialContext(ctx, network, address)
			}
			return c.raw, err
		}),
	}
	if r.TLS == StartTLS {
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if r.User != "" {
		options = append(options, gomail.WithUsername(r.User), gomail.WithPassword(r.Password), gomail.WithOpportunisticSMTPAuth(
			gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthPlain, gomail.SMTPAuthLogin, gomail.SMTPAuthCramMD5))
	}
	client, err := gomail.NewClient(r.Host, options...)
	if err != nil {
		return nil, fmt.Errorf("cannot use the mail relay %q: %w", r.Host, err)
	}
	c.client = client
	if c.session, err = client.DialToSMTPClientWithContext(ctx); err != nil {
		if c.raw != nil {
			c.raw.Close()
		}
		return nil, fmt.Errorf("cannot log in to the mail relay %q: %w", r.Host, err)
	}
	c.stop = context.AfterFunc(ctx, func() { c.raw.Close() })
	return c, nil
}

// close says goodbye to the relay if it still listens.
func (c *connection) close() {
	c.stop()
	if err := c.client.CloseWithSMTPClient(c.session); err != nil {
		c.raw.Close()
	}
}

// fate is what became of an attempt.
type fate int

const (
	delivered fate = iota
	later          // this message, with the words of the relay
	refused        // this message, for ever
	down           // the relay, for every message
)

// send hands a message over.
func (c *connection) send(m *gomail.Msg) (fate, error) {
	err := c.client.SendWithSMTPClient(c.session, m)
	if err == nil || m.IsDelivered() { // what fails after the relay has taken it must not make a second one
		return delivered, nil
	}
	var problem *gomail.SendError
	if !errors.As(err, &problem) {
		return down, err
	}
	switch problem.Reason {
	case gomail.ErrGetSender, gomail.ErrGetRcpts:
		return refused, err
	case gomail.ErrSMTPRcptTo, gomail.ErrSMTPDataClose, gomail.ErrSMTPData:
		if code := problem.ErrorCode(); code >= 500 {
			return refused, err
		} else if code >= 400 && code != 421 { // RFC 5321 section 3.8: 421 closes the connection
			return later, err
		}
	}
	return down, err // also what it says against our address: that is a fault of the settings
}
