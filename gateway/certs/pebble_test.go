package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/mholt/acmez/v3"
	"github.com/miekg/dns"

	"allotment/gateway/certs/acmetest"
)

// world is an ACME authority, the name servers that it asks, and a box whose clock can be set.
type world struct {
	t       *testing.T
	keeper  *Keeper
	folder  string
	config  Config
	clock   atomic.Int64 // seconds
	down    atomic.Bool  // the authority does not answer
	lost    sync.Map     // names that lead nowhere
	mute    atomic.Bool  // the box answers no challenges
	forgets atomic.Bool  // the authority does not know the certificates that are to be replaced
	refused atomic.Int64 // orders that it refused therefore
	orders  atomic.Int64 // requests for certificates
	ca      *ca.CAImpl
	manage  *httptest.Server
	rootPEM string
}

func (w *world) now() time.Time       { return time.Unix(w.clock.Load(), 0) }
func (w *world) set(t time.Time)      { w.clock.Store(t.Unix()) }
func (w *world) pass(d time.Duration) { w.clock.Add(int64(d / time.Second)) }
func (w *world) log() *slog.Logger    { return slog.New(slog.NewTextHandler(w.t.Output(), nil)) }
func (w *world) look()                { w.keeper.look().Wait() }
func (w *world) certificate(n string) *x509.Certificate {
	w.t.Helper()
	c, err := w.keeper.Certificate(&tls.ClientHelloInfo{ServerName: n})
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Leaf
}

// newWorld makes a box with the names. Profiles are the authority's beside the usual one.
func newWorld(t *testing.T, names []string, profiles ...string) *world {
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "5") // percent
	t.Setenv("PEBBLE_AUTHZREUSE", "0")
	w := &world{t: t, folder: t.TempDir()}
	w.set(time.Now())
	answers, err := New(w.folder, w.now, w.log())
	if err != nil {
		t.Fatal(err)
	}
	w.keeper = answers
	store, quiet := db.NewMemoryStore(), log.New(io.Discard, "", 0)
	all := map[string]ca.Profile{"default": {Description: "usual", ValidityPeriod: 90 * 24 * 3600}}
	for _, p := range profiles {
		all[p] = ca.Profile{Description: p, ValidityPeriod: 6 * 24 * 3600}
	}
	w.ca = ca.New(quiet, store, "", "ecdsa", 0, 1, all)
	validation := va.New(quiet, w.serveHTTP(), w.serveTLS(), true, w.serveDNS(), store)
	acme := wfe.New(quiet, store, validation, w.ca, nil, true, false, 0, 0)
	inner := acme.Handler()
	// Its certificate is good for some months only, so that a wrong clock matters.
	front, err := loadOwn(t.TempDir(), []string{"127.0.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.down.Load() {
			http.Error(rw, "closed", http.StatusServiceUnavailable)
			return
		}
		answer := httptest.NewRecorder()
		if w.forgets.Load() && replaces(r) {
			w.refused.Add(1)
			answer.Header().Set("Content-Type", "application/problem+json")
			answer.WriteHeader(http.StatusNotFound)
			io.WriteString(answer, `{"type":"urn:ietf:params:acme:error:malformed","status":404,"detail":"no such certificate"}`)
		} else {
			inner.ServeHTTP(answer, r)
		}
		if strings.Contains(r.URL.Path, "order-plz") && answer.Code == http.StatusCreated {
			w.orders.Add(1)
		}
		maps.Copy(rw.Header(), answer.Header())
		rw.WriteHeader(answer.Code)
		rw.Write(answer.Body.Bytes())
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{*front.local}}
	s.Config.ErrorLog = quiet
	s.StartTLS()
	w.manage = httptest.NewServer(acme.ManagementHandler())
	t.Cleanup(func() { s.Close(); w.manage.Close(); w.keeper.stop() })
	w.rootPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.authority.Leaf.Raw}))
	w.config = Config{Names: names, Directory: s.URL + wfe.DirectoryPath, Email: "chair@club.invalid"}
	return w
}

// replaces: the request orders a certificate in place of another one.
func replaces(r *http.Request) bool {
	var order struct{ Replaces string }
	return json.Unmarshal(acmetest.Payload(r), &order) == nil && order.Replaces != ""
}

func (w *world) configure() {
	w.t.Helper()
	web, err := Client(w.rootPEM, nil, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.keeper.SetConfig(w.config, web); err != nil {
		w.t.Fatal(err)
	}
}

func port(a net.Addr) int { return a.(*net.TCPAddr).Port }

func (w *world) serveHTTP() int {
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if a, ok := w.keeper.Challenge(r.URL.Path); ok && !w.mute.Load() {
			io.WriteString(rw, a)
			return
		}
		http.NotFound(rw, r)
	}))
	w.t.Cleanup(s.Close)
	return port(s.Listener.Addr())
}

func (w *world) serveTLS() int {
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		NextProtos: []string{acmez.ACMETLS1Protocol},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if w.mute.Load() {
				return nil, io.EOF
			}
			return w.keeper.Certificate(h)
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { c.(*tls.Conn).HandshakeContext(context.Background()); c.Close() }()
		}
	}()
	return port(l.Addr())
}

// serveDNS answers for all names but lost ones.
func (w *world) serveDNS() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	s := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		name := q.Question[0].Name
		if _, lost := w.lost.Load(strings.TrimSuffix(name, ".")); lost {
			m.Rcode = dns.RcodeNameError
		} else if q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{
				Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1),
			}}
		}
		rw.WriteMsg(m)
	})}
	go s.ActivateAndServe()
	w.t.Cleanup(func() { s.Shutdown() })
	return l.Addr().String()
}

// verify checks a chain of the folder or of a module as a browser would.
func (w *world) verify(file string, names ...string) *x509.Certificate {
	w.t.Helper()
	c, err := load(filepath.Join(w.folder, file))
	if err != nil || c == nil {
		w.t.Fatalf("%s: %v, %v", file, c, err)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(w.ca.GetRootCert(0).Cert)
	for _, der := range c.Certificate[1:] {
		i, err := x509.ParseCertificate(der)
		if err != nil {
			w.t.Fatal(err)
		}
		between.AddCert(i)
	}
	for _, n := range names {
		if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: n, Roots: roots, Intermediates: between}); err != nil {
			w.t.Errorf("%s: %v", file, err)
		}
	}
	return c.Leaf
}

// suggest makes the authority suggest another time for renewal.
func (w *world) suggest(c *x509.Certificate, start, end time.Time) {
	w.t.Helper()
	window := map[string]time.Time{"start": start.UTC(), "end": end.UTC()}
	answer, err := json.Marshal(map[string]any{"suggestedWindow": window})
	if err != nil {
		w.t.Fatal(err)
	}
	question, err := json.Marshal(map[string]string{
		"Certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})), "ARIResponse": string(answer),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := http.Post(w.manage.URL+"/set-renewal-info/", "application/json", bytes.NewReader(question))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusOK {
		w.t.Fatal(r.Status)
	}
}
