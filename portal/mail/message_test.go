package mail

import (
	"errors"
	netmail "net/mail"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"allotment/portal/store"
)

func TestCheckAddress(t *testing.T) {
	for address, want := range map[string]string{
		"anna@example.org": "anna@example.org", " Anna@Example.ORG ": "Anna@example.org", "änne@bücher.example": "änne@bücher.example",
		"": "", "anna": "", "anna@localhost": "", "Anna <anna@example.org>": "", "a@b.c, d@e.f": "", "a@[192.0.2.1]": "",
		"anna@example.org\r\nBcc: all@example.org": "", "an na@example.org": "", `"an na"@example.org`: "",
		strings.Repeat("a", 250) + "@b.cc": "", "a@b.c\x00": "",
	} {
		got, err := CheckAddress(address)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrMessage) {
			t.Errorf("%q: %q, error %v", address, got, err)
		}
	}
}

// FuzzMessage looks that whatever is in a message that is taken, its mail has the headers that it should have and no more.
func FuzzMessage(f *testing.F) {
	f.Add("anna@example.org", "Hello", "text", "de")
	f.Add("anna@example.org\nBcc: b@c.de", "Hello\r\nBcc: b@c.de", "text\r\n.\r\nMAIL FROM:<>", "de\nX: y")
	f.Add("änne@example.org", "Grüße 🌱\u2028X", "a\tb\n", "en-GB")
	f.Fuzz(func(t *testing.T, to, subject, text, language string) {
		m := Message{To: to, Subject: subject, Text: text, Language: language}
		if m.check() != nil {
			return
		}
		i := Item{Message: m, MessageID: newMessageID("box@club.example"), Queued: time.Unix(1800000000, 0)}
		composed, err := i.compose(Relay{From: "box@club.example"})
		if err != nil {
			return
		}
		var raw strings.Builder
		if _, err := composed.WriteTo(&raw); err != nil {
			t.Fatal(err)
		}
		read, err := netmail.ReadMessage(strings.NewReader(raw.String()))
		if err != nil {
			t.Fatalf("%v: %q", err, raw.String())
		}
		want := 9
		if language != "" {
			want++
		}
		if len(read.Header) != want || len(read.Header["To"]) != 1 || len(read.Header["Subject"]) != 1 {
			t.Errorf("headers %v", read.Header)
		}
	})
}

func TestMessageCheck(t *testing.T) {
	good := Message{To: "anna@example.org", Subject: "Hello", Text: "a\n\tb", Language: "de-CH"}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Message){
		"address":            func(m *Message) { m.To = "anna" },
		"address's form":     func(m *Message) { m.To = "anna@Example.org" },
		"header in subject":  func(m *Message) { m.Subject = "Hello\r\nBcc: all@example.org" },
		"header in address":  func(m *Message) { m.To = "anna@example.org\nBcc: all@example.org" },
		"header in language": func(m *Message) { m.Language = "de\nBcc: all@example.org" },
		"no subject":         func(m *Message) { m.Subject = "" },
		"long subject":       func(m *Message) { m.Subject = strings.Repeat("a", maxSubject+1) },
		"no text":            func(m *Message) { m.Text = "" },
		"long text":          func(m *Message) { m.Text = strings.Repeat("a", maxText+1) },
		"bare CR":            func(m *Message) { m.Text = "a\rb" },
		"NUL":                func(m *Message) { m.Text = "a\x00b" },
	} {
		bad := good
		spoil(&bad)
		if err := bad.check(); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestRelaySettings(t *testing.T) {
	db, err := store.Open(filepath.Join(t.TempDir(), "portal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	good := Relay{Host: "smtp.example.org", Port: 587, TLS: StartTLS, User: "u", Password: "p", From: "box@club.example"}
	if StoredRelay(db) != (Relay{}) {
		t.Error("there is a relay from the beginning")
	}
	if err := db.Update(func(tx *store.Tx) error { return SetRelay(tx, good) }); err != nil {
		t.Fatal(err)
	}
	if StoredRelay(db) != good {
		t.Errorf("it is %v", StoredRelay(db))
	}
	for name, spoil := range map[string]func(*Relay){
		"host":                 func(r *Relay) { r.Host = "smtp.example.org:25" },
		"port":                 func(r *Relay) { r.Port = 0 },
		"TLS":                  func(r *Relay) { r.TLS = "yes" },
		"password without TLS": func(r *Relay) { r.TLS = NoTLS },
		"sender":               func(r *Relay) { r.From = "box" },
		"header in name":       func(r *Relay) { r.FromName = "Club\r\nBcc: all@example.org" },
	} {
		bad := good
		spoil(&bad)
		if err := db.Update(func(tx *store.Tx) error { return SetRelay(tx, bad) }); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := db.Update(func(tx *store.Tx) error { return SetRelay(tx, Relay{}) }); err != nil {
		t.Error(err)
	}
}

func TestTexts(t *testing.T) {
	texts := NewTexts(map[string]map[string]string{
		"en": {"mail.a.subject": "To {name}", "mail.a.text": "Hello {name},\n\n{nothing}\n\nbye\n"},
		"de": {"mail.a.subject": "An {name}", "mail.a.text": "Hallo {name},\n\n{nothing}\n\nbis bald\n"},
	})
	values := map[string]string{"name": "Änne {nothing}\r\nBcc: all@example.org", "nothing": ""}
	for wanted, want := range map[string]string{"": "Hello", "de": "Hallo", "de-AT": "Hallo", "fr": "Hello", "nonsense\n": "Hello"} {
		m, err := texts.Write("anna@example.org", wanted, "a", values)
		if err != nil || m.check() != nil || !strings.HasPrefix(m.Text, want+" Änne {nothing}\nBcc: all@example.org,\n\nb") {
			t.Errorf("%q: %+v, error %v", wanted, m, err)
		}
	}
	if _, err := texts.Write("anna@example.org", "en", "nothing", nil); err == nil {
		t.Error("a mail that is not there was made")
	}
	m, err := texts.Write("anna@example.org", "en", "a", map[string]string{"name": "a\nb" + strings.Repeat("ä", 300)})
	if err != nil || m.check() != nil || !strings.HasPrefix(m.Subject, "To a bä") || !strings.HasSuffix(m.Subject, "ä…") {
		t.Errorf("%q, error %v, check %v", m.Subject, err, m.check())
	}
}
