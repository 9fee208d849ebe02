// Package mail is the portal's queue of outgoing mail. A message is in the database before Send returns, goes to the
// organisation's relay with growing pauses between attempts, and is given up after three days, which officers then see.
//
// A message is handed over at least once: after a power cut at the wrong moment a relay can get it twice, with the same
// Message-ID, by which mail programs show it once.
package mail

import (
	"crypto/rand"
	"errors"
	"fmt"
	netmail "net/mail"
	"strings"
	"time"
	"unicode"

	gomail "github.com/wneessen/go-mail"
)

// Message is a mail in plain text to one person.
type Message struct {
	To       string    `json:"to"` // bare address
	Subject  string    `json:"subject"`
	Text     string    `json:"text"`               // lines end in \n
	Language string    `json:"language,omitempty"` // BCP 47
	Until    time.Time `json:"until,omitzero"`     // when it is of no use any more, such as the end of its link; zero: never
}

// ErrMessage says that a message cannot be sent as it is, now or later.
var ErrMessage = errors.New("not a mail that can be sent")

// Bounds of a message in bytes. RFC 5321 section 4.5.3.1.3 bounds addresses.
const (
	maxAddress = 254
	maxSubject = 300
	maxText    = 64 << 10
)

// CheckAddress returns the address as the queue wants it: bare, its domain in small letters and with a dot.
func CheckAddress(address string) (string, error) {
	address = strings.TrimSpace(address)
	parsed, err := netmail.ParseAddress(address)
	if err != nil || parsed.Address != address || len(address) > maxAddress || hasControl(address) {
		return "", fmt.Errorf("%q is no mail address: %w", address, ErrMessage)
	}
	at := strings.LastIndexByte(address, '@')
	local, domain := address[:at], strings.ToLower(address[at+1:])
	if !strings.Contains(domain, ".") || strings.ContainsAny(domain, "[]") || strings.ContainsAny(local, "\" ") {
		return "", fmt.Errorf("%q is no mail address that others reach: %w", address, ErrMessage)
	}
	return local + "@" + domain, nil
}

func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

// check refuses what must not get into a header, and what is too long.
func (m *Message) check() error {
	if to, err := CheckAddress(m.To); err != nil {
		return err
	} else if to != m.To {
		return fmt.Errorf("%q is not written as CheckAddress does: %w", m.To, ErrMessage)
	}
	switch {
	case m.Subject == "" || len(m.Subject) > maxSubject || hasControl(m.Subject):
		return fmt.Errorf("subject %q is empty, too long or has control characters: %w", m.Subject, ErrMessage)
	case m.Text == "" || len(m.Text) > maxText || strings.ContainsFunc(m.Text, isBadInText):
		return fmt.Errorf("the text of %q is empty, too long or has control characters: %w", m.Subject, ErrMessage)
	case len(m.Language) > 35 || strings.ContainsFunc(m.Language, isBadInLanguage):
		return fmt.Errorf("language %q: %w", m.Language, ErrMessage)
	}
	return nil
}

func isBadInText(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }

func isBadInLanguage(r rune) bool {
	return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}

// newMessageID makes a Message-ID (RFC 5322 section 3.6.4) of the sender's domain.
func newMessageID(from string) string {
	domain := from[strings.LastIndexByte(from, '@')+1:]
	if domain == "" {
		domain = "allotment.internal"
	}
	return strings.ToLower(rand.Text()) + "@" + domain
}

// compose makes the mail of an item. Each attempt gives the same one.
func (i *Item) compose(relay Relay) (*gomail.Msg, error) {
	m := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := m.FromFormat(relay.FromName, relay.From); err != nil {
		return nil, fmt.Errorf("cannot use the sender %q: %w", relay.From, err)
	}
	if err := m.To(i.Message.To); err != nil {
		return nil, fmt.Errorf("cannot use the address %q: %w", i.Message.To, err)
	}
	m.Subject(i.Message.Subject)
	m.SetDateWithValue(i.Queued)
	m.SetMessageIDWithValue(i.MessageID)
	m.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no out-of-office answers to it
	if i.Message.Language != "" {
		m.SetGenHeader("Content-Language", i.Message.Language)
	}
	m.SetBodyString(gomail.TypeTextPlain, strings.ReplaceAll(i.Message.Text, "\n", "\r\n"))
	return m, nil
}
