package qemutests

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"

	"allotment/gateway/certs/acmetest"
	"allotment/image"
)

// authority issues certificates to one machine (RFC 8555), by Let's Encrypt's own program for tests.
type authority struct {
	acme  image.ACME     // for the machine's profile
	roots *x509.CertPool // those who trust it
	made  atomic.Int64   // orders that were taken

	front *httptest.Server
	names string // HOST:PORT of the name server
}

// newAuthority makes one that machines reach, but that answers nobody before it opens. It asks a name server of its own, which
// machines ask as well, and by which the domain and all names below it lead to this machine's loopback.
func newAuthority(t *testing.T, domain string) *authority {
	t.Helper()
	a := &authority{roots: x509.NewCertPool()}
	a.names = serveNames(t, domain, net.IPv4(127, 0, 0, 1))
	a.front = httptest.NewUnstartedServer(nil)
	t.Cleanup(a.front.Close)
	cert, root := frontCertificate(t)
	a.front.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	a.front.Config.ErrorLog = log.New(io.Discard, "", 0)
	_, port, err := net.SplitHostPort(a.front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a.acme = image.ACME{Directory: "https://" + net.JoinHostPort(hostSeen, port) + wfe.DirectoryPath, Root: root}
	return a
}

// open lets it look for names at the ports of this machine, and issue. It refuses one name.
func (a *authority) open(t *testing.T, plain, secure int, refused string) {
	t.Helper()
	for key, value := range map[string]string{"VA_NOSLEEP": "1", "AUTHZREUSE": "0"} {
		t.Setenv("PEBBLE_"+key, value)
	}
	quiet, store := log.New(io.Discard, "", 0), db.NewMemoryStore()
	issuer := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: 90 * 24 * 3600}})
	a.roots.AddCert(issuer.GetRootCert(0).Cert)
	validation := va.New(quiet, plain, secure, true, a.names, store)
	inner := wfe.New(quiet, store, validation, issuer, nil, true, false, 0, 0)
	handler := inner.Handler()
	a.front.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if orders(r, refused) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"type": "urn:ietf:params:acme:error:rejectedIdentifier", "status": 400}`)
			return
		}
		watched := &statusWriter{ResponseWriter: w}
		handler.ServeHTTP(watched, r)
		if strings.Contains(r.URL.Path, "order-plz") && watched.status == http.StatusCreated {
			a.made.Add(1)
		}
	})
	a.front.StartTLS()
}

// orders tells whether a request orders a certificate for the name. The program's own list of refused names fails at names that
// are shorter than these.
func orders(r *http.Request, name string) bool {
	return strings.Contains(string(acmetest.Payload(r)), `"`+name+`"`)
}

// statusWriter remembers an answer's status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// serveNames says that the domain and all names below it are at the address, at the port of name servers, as machines can be
// told of no other. It returns where it answers, as HOST:PORT.
func serveNames(t *testing.T, domain string, to net.IP) string {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Authoritative = true
		name, kind := q.Question[0].Name, q.Question[0].Qtype
		header := dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: 1}
		switch known := strings.HasSuffix("."+name, "."+dns.Fqdn(domain)); {
		case !known:
			m.Rcode = dns.RcodeNameError
		case kind == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: header, A: to})
		}
		if err := w.WriteMsg(m); err != nil {
			t.Log(err)
		}
	})
	packets, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		t.Skip("only root can be a name server here: ", err)
	}
	stream, err := net.Listen("tcp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: stream, Handler: handler}} {
		go s.ActivateAndServe()
		t.Cleanup(func() { s.Shutdown() })
	}
	return packets.LocalAddr().String()
}

// frontCertificate makes one for the address by which machines reach this machine, and returns its root in PEM.
func frontCertificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().AddDate(0, 0, -1), NotAfter: time.Now().AddDate(1, 0, 0),
		IPAddresses: []net.IP{net.ParseIP(hostSeen), net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(root)
}
