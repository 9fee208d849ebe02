package proxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"allotment/gateway"
)

// box is a gateway with all its sockets.
type box struct {
	gateway          *Gateway
	plain, tls, quic string         // HOST:PORT
	browsers         *x509.CertPool // what visitors trust
	end              func() error
}

// portalAt serves the portal's part of the contract on a unix socket.
func portalAt(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "portal.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return "unix:" + path
}

// issue puts a certificate for the name into the folder, as if an authority that browsers trust had issued it.
// Renewed tells whether it is not the first one.
func issue(t *testing.T, folder, name string, renewed bool) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(90 * 24 * time.Hour), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	record := `{"renewals":0}`
	if renewed {
		record = `{"renewals":1}`
	}
	for file, text := range map[string][]byte{name + ".pem": b, name + ".json": []byte(record)} {
		if err := os.WriteFile(filepath.Join(folder, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

// open starts a gateway with TLS and HTTP/3. Of names, those in public have certificates that browsers trust.
func open(t *testing.T, c gateway.Config, limits Limits, public ...string) *box {
	t.Helper()
	c.Data = t.TempDir()
	b := &box{browsers: x509.NewCertPool()}
	for i, name := range public {
		b.browsers.AddCert(issue(t, c.Data, name, i > 0))
	}
	var err error
	if b.gateway, err = New(c, limits, slog.New(slog.NewTextHandler(t.Output(), nil))); err != nil {
		t.Fatal(err)
	}
	var s Sockets
	if s.Plain, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if s.TLS, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if s.QUIC, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	b.plain, b.tls, b.quic = s.Plain.Addr().String(), s.TLS.Addr().String(), s.QUIC.LocalAddr().String()
	b.browsers.AppendCertsFromPEM(b.gateway.keeper.Authority())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.gateway.Serve(ctx, s) }()
	b.end = func() error { cancel(); err := <-ended; ended <- err; return err }
	t.Cleanup(func() {
		if err := b.end(); err != nil {
			t.Error(err)
		}
		s.QUIC.Close()
	})
	return b
}

// browser makes a client that finds all names at the box, by HTTP/1.1 or 2 and HTTPS, and follows no redirects.
func (b *box) browser(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: b.browsers},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			to := b.plain
			if _, port, _ := net.SplitHostPort(address); port == "443" {
				to = b.tls
			}
			return (&net.Dialer{}).DialContext(ctx, network, to)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: noRedirect}
}

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }
