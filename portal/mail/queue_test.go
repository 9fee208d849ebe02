package mail

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	netmail "net/mail"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"allotment/portal/audit"
	"allotment/portal/store"
)

// server is a relay of a test. What it answers can be changed while it runs.
type server struct {
	mu       sync.Mutex
	got      []string      // mails that it took
	rcpt     error         // answer to RCPT
	data     error         // answer after DATA
	cutAt    string        // "data": it closes the connection in the middle; "quit": after it has taken the mail
	hang     chan struct{} // it waits for this before it answers DATA
	hanging  chan struct{} // closed once it does
	taken    chan struct{} // told of each mail; nil: nobody
	sessions int
}

func (s *server) NewSession(c *smtp.Conn) (smtp.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions++
	return &session{s, c}, nil
}

type session struct {
	*server
	conn *smtp.Conn
}

func (s *session) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cutAt == "quit" && len(s.got) > 0 {
		s.conn.Conn().Close()
	}
}
func (s *session) Logout() error                        { return nil }
func (s *session) Mail(string, *smtp.MailOptions) error { return nil }
func (s *session) Rcpt(_ string, _ *smtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rcpt
}
func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }
func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "club" || password != "secret" {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

func (s *session) Data(r io.Reader) error {
	s.mu.Lock()
	hang, cut := s.hang, s.cutAt
	s.mu.Unlock()
	if cut == "data" {
		s.conn.Conn().Close()
		return io.ErrUnexpectedEOF
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if hang != nil {
		close(s.hanging)
		<-hang
	}
	if s.taken != nil {
		s.taken <- struct{}{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data == nil {
		s.got = append(s.got, string(raw))
	}
	return s.data
}

// certificate is one for localhost, and the pool that trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, pool
}

// bench is a queue with a clock of its own and a relay.
type bench struct {
	*Queue
	t     *testing.T
	relay Relay
	clock time.Time
	path  string
	log   bytes.Buffer
}

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func newBench(t *testing.T, s *server, way string) *bench {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cert, pool := certificate(t)
	server := smtp.NewServer(s)
	server.Domain, server.EnableSMTPUTF8 = "localhost", true
	server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if way != NoTLS {
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	if way == TLS {
		l = tls.NewListener(l, server.TLSConfig)
	}
	done := make(chan struct{})
	go func() { server.Serve(l); close(done) }()
	t.Cleanup(func() { server.Close(); <-done })
	b := &bench{t: t, clock: start, path: filepath.Join(t.TempDir(), "portal.db")}
	b.relay = Relay{Host: "localhost", Port: portOf(t, l), TLS: way, From: "box@club.example", FromName: "Garden Club"}
	b.open()
	b.roots = pool
	return b
}

func portOf(t *testing.T, l net.Listener) int {
	t.Helper()
	return l.Addr().(*net.TCPAddr).Port
}

// open opens the database, again if it is open: nothing that was only in memory is there any more.
func (b *bench) open() {
	b.t.Helper()
	var roots *x509.CertPool
	if b.Queue != nil {
		roots = b.roots
		b.db.Close()
	}
	db, err := store.Open(b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { db.Close() })
	b.Queue = New(db, func() Relay { return b.relay }, func() time.Time { return b.clock }, slog.New(slog.NewTextHandler(&b.log, nil)))
	b.roots, b.timeout = roots, 10*time.Second
}

func (b *bench) send(to ...string) {
	b.t.Helper()
	for _, to := range to {
		m := Message{To: to, Subject: "Grüße 🌱", Text: "Liebe Anna,\n\n.es ist Frühling.\n", Language: "de"}
		if err := b.Send(b.t.Context(), m); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) round() time.Time {
	b.t.Helper()
	next, err := b.deliver(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return next
}

// wants says how many wait, how many were given up, and how many the relay took.
func (b *bench) wants(s *server, waiting, failed, taken int) {
	b.t.Helper()
	w, err := b.Pending()
	if err != nil {
		b.t.Fatal(err)
	}
	f, err := b.Failed()
	if err != nil {
		b.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(w) != waiting || len(f) != failed || len(s.got) != taken {
		b.t.Errorf("%d wait, %d were given up, %d were taken; want %d, %d, %d; log: %s", len(w), len(f), len(s.got), waiting,
			failed, taken, b.log.String())
	}
}

func TestDelivers(t *testing.T) {
	for _, way := range []string{StartTLS, TLS, NoTLS} {
		t.Run(way, func(t *testing.T) {
			s := &server{}
			b := newBench(t, s, way)
			if way != NoTLS {
				b.relay.User, b.relay.Password = "club", "secret"
			}
			b.send("anna@example.org", "bert@example.org")
			b.open()
			b.round()
			b.wants(s, 0, 0, 2)
			if s.sessions != 1 && way != StartTLS { // which begins a second session
				t.Errorf("%d connections for two mails", s.sessions)
			}
			m, err := netmail.ReadMessage(strings.NewReader(s.got[0]))
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{"From": `"Garden Club" <box@club.example>`, "To": "<anna@example.org>",
				"Date": "Sun, 22 Nov 2026 12:00:00 +0000", "Auto-Submitted": "auto-generated", "Content-Language": "de",
				"Content-Type": "text/plain; charset=UTF-8", "Content-Transfer-Encoding": "quoted-printable"} {
				if got := m.Header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if id := m.Header.Get("Message-Id"); !strings.HasSuffix(id, "@club.example>") || len(id) < 30 {
				t.Errorf("Message-ID %q", id)
			}
			body, _ := io.ReadAll(m.Body)
			if want := "Liebe Anna,\r\n\r\n.es ist Fr=C3=BChling.\r\n"; string(body) != want {
				t.Errorf("body %q, want %q", body, want)
			}
		})
	}
}

// TestWrongCertificate has a relay that the system does not trust: nothing is sent, no password either.
func TestWrongCertificate(t *testing.T) {
	for _, way := range []string{StartTLS, TLS} {
		t.Run(way, func(t *testing.T) {
			s := &server{}
			b := newBench(t, s, way)
			b.relay.User, b.relay.Password = "club", "secret"
			b.roots = x509.NewCertPool()
			b.send("anna@example.org")
			if next := b.round(); !next.Equal(start.Add(firstPause)) {
				t.Errorf("next round at %s", next)
			}
			b.wants(s, 1, 0, 0)
			if !strings.Contains(b.log.String(), "certificate") {
				t.Errorf("log %q", b.log.String())
			}
		})
	}
}

func TestRelayWithoutTLS(t *testing.T) {
	s := &server{}
	b := newBench(t, s, NoTLS)
	b.relay.TLS = StartTLS
	b.send("anna@example.org")
	b.round()
	b.wants(s, 1, 0, 0)
}

func TestAnswers(t *testing.T) {
	soft, hard := &smtp.SMTPError{Code: 450, Message: "later"}, &smtp.SMTPError{Code: 550, Message: "nobody here"}
	for name, c := range map[string]struct {
		relay           *server
		waiting, failed int
		more            bool // a second mail is tried after this answer
	}{
		"later":        {&server{rcpt: soft}, 2, 0, true},
		"never":        {&server{rcpt: hard}, 0, 2, true},
		"spam":         {&server{data: hard}, 0, 2, true},
		"greylist":     {&server{data: soft}, 2, 0, true},
		"cut in DATA":  {&server{cutAt: "data"}, 2, 0, false},
		"out of order": {&server{rcpt: &smtp.SMTPError{Code: 421, Message: "closing"}}, 2, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, c.relay, NoTLS)
			b.send("anna@example.org", "bert@example.org")
			b.round()
			b.wants(c.relay, c.waiting, c.failed, 0)
			if more := c.relay.sessions == 2; more != c.more { // each failure has cost its connection
				t.Errorf("%d connections", c.relay.sessions)
			}
			c.relay.mu.Lock()
			c.relay.rcpt, c.relay.data, c.relay.cutAt = nil, nil, ""
			c.relay.mu.Unlock()
			b.round()
			b.wants(c.relay, c.waiting, c.failed, 0) // not before its time
			b.clock = b.clock.Add(firstPause)
			b.round()
			b.wants(c.relay, 0, c.failed, c.waiting)
		})
	}
}

// TestTakenThenCut has a relay that takes the mail and then closes the connection: it must not get a second one.
func TestTakenThenCut(t *testing.T) {
	s := &server{cutAt: "quit"}
	b := newBench(t, s, StartTLS)
	b.send("anna@example.org")
	b.round()
	b.clock = b.clock.Add(time.Hour)
	b.round()
	b.wants(s, 0, 0, 1)
}

// TestHangs ends the portal while the relay does not answer, and then lets the time for an attempt run out.
func TestHangs(t *testing.T) {
	s := &server{hang: make(chan struct{}), hanging: make(chan struct{})}
	b := newBench(t, s, StartTLS)
	t.Cleanup(func() { close(s.hang) })
	b.send("anna@example.org")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-s.hanging; cancel() }()
	if _, err := b.deliver(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	b.wants(s, 1, 0, 0)
	s.mu.Lock()
	s.hanging = make(chan struct{})
	s.mu.Unlock()
	b.timeout = 100 * time.Millisecond
	if next := b.round(); !next.Equal(start.Add(firstPause)) {
		t.Errorf("next round at %s", next)
	}
	b.wants(s, 1, 0, 0)
}

// TestPowerCut opens the database as it was when the relay had taken the mail and the queue did not know yet.
func TestPowerCut(t *testing.T) {
	s := &server{}
	b := newBench(t, s, StartTLS)
	b.send("anna@example.org")
	due, _, err := b.due()
	if err != nil || len(due) != 1 {
		t.Fatalf("%d due, error %v", len(due), err)
	}
	c, err := connect(t.Context(), b.relay, b.roots, b.timeout)
	if err != nil {
		t.Fatal(err)
	}
	m, err := due[0].compose(b.relay)
	if err != nil {
		t.Fatal(err)
	}
	if what, err := c.send(m); what != delivered {
		t.Fatal(err)
	}
	c.close()
	b.open()
	b.clock = b.clock.Add(time.Minute)
	b.round()
	b.wants(s, 0, 0, 2)
	if s.got[0] != s.got[1] {
		t.Errorf("the second is another mail:\n%s\n%s", s.got[0], s.got[1])
	}
}

func TestGivesUp(t *testing.T) {
	s := &server{cutAt: "data"}
	b := newBench(t, s, StartTLS)
	b.send("anna@example.org", "bert@example.org")
	rounds := 0
	for b.clock.Before(start.Add(giveUp + longestPause)) {
		next := b.round()
		if rounds++; next.IsZero() {
			break
		}
		if pause := next.Sub(b.clock); pause < firstPause || pause > longestPause {
			t.Fatalf("pause of %s", pause)
		}
		b.clock = next
	}
	b.wants(s, 0, 2, 0)
	if rounds < 20 || rounds > 40 {
		t.Errorf("%d attempts", rounds)
	}
	entries, err := audit.New(b.db, b.now).Recent(2, "")
	if err != nil || len(entries) != 2 || entries[1].Kind != "mail.failed" || entries[1].Subject != "anna@example.org" {
		t.Errorf("audit log %v, error %v", entries, err)
	}
	items, _ := b.Failed()
	s.mu.Lock()
	s.cutAt = ""
	s.mu.Unlock()
	if err := b.Retry(items[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(items[1].ID); err != nil {
		t.Fatal(err)
	}
	b.clock = b.clock.Add(longestPause)
	b.round()
	b.wants(s, 0, 0, 1)
	if err := b.Retry("nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v", err)
	}
}

func TestForgetsFailed(t *testing.T) {
	s := &server{rcpt: &smtp.SMTPError{Code: 550, Message: "nobody here"}}
	b := newBench(t, s, StartTLS)
	b.send("anna@example.org")
	b.round()
	b.wants(s, 0, 1, 0)
	b.clock = b.clock.Add(keepFailed)
	b.round()
	b.wants(s, 0, 0, 0)
}

// TestLimit sends more to one person than she gets in an hour; nobody else waits for that.
func TestLimit(t *testing.T) {
	s := &server{}
	b := newBench(t, s, StartTLS)
	for range perHour + 3 {
		b.send("Anna@example.org")
	}
	b.send("anna@example.org", "bert@example.org")
	for range 3 {
		b.round()
	}
	b.wants(s, 4, 0, perHour+1)
	b.clock = b.clock.Add(time.Hour)
	b.round()
	b.wants(s, 0, 0, perHour+5)
}

func TestTooLate(t *testing.T) {
	s := &server{}
	b := newBench(t, s, StartTLS)
	for _, until := range []time.Duration{time.Hour, 3 * time.Hour} {
		m := Message{To: "anna@example.org", Subject: "Link", Text: "x", Until: start.Add(until)}
		if err := b.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	b.clock = b.clock.Add(2 * time.Hour)
	b.round()
	b.wants(s, 0, 1, 1)
}

// TestWithoutRelay has mail wait until somebody sets a relay.
func TestWithoutRelay(t *testing.T) {
	s := &server{}
	b := newBench(t, s, StartTLS)
	relay := b.relay
	b.relay = Relay{}
	b.send("anna@example.org")
	b.clock = b.clock.Add(10 * giveUp)
	b.round()
	b.wants(s, 1, 0, 0)
	b.relay = relay
	b.round()
	b.wants(s, 0, 0, 1)
}

// TestNewSettingsCountAtOnce corrects a wrong relay and does not wait for the pause's end.
func TestNewSettingsCountAtOnce(t *testing.T) {
	s := &server{}
	b := newBench(t, s, StartTLS)
	b.relay.User, b.relay.Password = "club", "wrong"
	b.send("anna@example.org")
	b.round()
	b.wants(s, 1, 0, 0)
	b.relay.Password = "secret"
	b.clock = b.clock.Add(firstPause)
	b.round()
	b.wants(s, 0, 0, 1)
}

// TestRun sends while Run waits, alone and as part of a transaction. Once the relay has the third, the others are settled.
func TestRun(t *testing.T) {
	s := &server{taken: make(chan struct{})}
	b := newBench(t, s, StartTLS)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { b.Run(ctx); close(done) }()
	b.send("anna@example.org")
	<-s.taken
	err := b.db.Update(func(tx *store.Tx) error {
		return b.SendIn(tx, Message{To: "bert@example.org", Subject: "a", Text: "b"})
	})
	if err != nil {
		t.Fatal(err)
	}
	<-s.taken
	b.send("carl@example.org")
	<-s.taken
	cancel()
	<-done
	items, err := b.Pending()
	if err != nil || len(items) > 1 || len(items) == 1 && items[0].Message.To != "carl@example.org" {
		t.Errorf("%v wait, error %v", items, err)
	}
}
