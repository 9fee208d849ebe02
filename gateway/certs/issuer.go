package certs

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// addressProfile is the only one by which Let's Encrypt issues for addresses.
const addressProfile = "shortlived"

// patience bounds one attempt to get a certificate.
const patience = 3 * time.Minute

// issuer gets certificates from one ACME authority.
type issuer struct {
	client  acmez.Client
	email   string
	keyPath string // of the account

	mu      sync.Mutex
	account *acme.Account // nil: not asked for yet
}

func newIssuer(folder string, c Config, web *http.Client, answers *challenges) *issuer {
	sum := sha256.Sum256([]byte(c.Directory))
	return &issuer{
		client: acmez.Client{
			Client: &acme.Client{Directory: c.Directory, HTTPClient: web, UserAgent: "Allotment", PollTimeout: patience},
			ChallengeSolvers: map[string]acmez.Solver{
				acme.ChallengeTypeHTTP01: httpSolver{answers}, acme.ChallengeTypeTLSALPN01: tlsSolver{answers},
			},
		},
		email:   c.Email,
		keyPath: filepath.Join(folder, "account-"+hex.EncodeToString(sum[:8])+".pem"),
	}
}

// obtain gets a certificate for the names: its key and chain. The authority is told that it replaces the old one, unless that is nil.
func (i *issuer) obtain(ctx context.Context, names []string, old *x509.Certificate) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	account, err := i.register(ctx)
	if err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	csr, err := acmez.NewCSR(key, names)
	if err != nil {
		return nil, err
	}
	order, err := acmez.OrderParametersFromCSR(account, csr)
	if err != nil {
		return nil, err
	}
	order.Replaces = old
	if _, err := netip.ParseAddr(names[0]); err == nil {
		order.Profile = addressProfile
	}
	chains, err := i.client.ObtainCertificate(ctx, order)
	if order.Replaces != nil && orderRefused(err) {
		order.Replaces = nil
		chains, err = i.client.ObtainCertificate(ctx, order)
	}
	if err != nil {
		i.forget(err)
		return nil, err
	}
	if len(chains) == 0 {
		return nil, errors.New("the authority sent no certificate")
	}
	return bundle(key, chains[0].ChainPEM)
}

// orderRefused: the authority did not even take the order, and not because there were too many. It may have lost the certificate
// that is to be replaced, which RFC 9773, section 5, lets it refuse; naming that is a courtesy that must not cost the next one.
func orderRefused(err error) bool {
	var p acme.Problem
	return errors.As(err, &p) && p.Type != acme.ProblemTypeRateLimited && strings.HasPrefix(err.Error(), "creating new order:")
}

// register returns the account, which is made unless the authority knows its key already.
func (i *issuer) register(ctx context.Context) (acme.Account, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.account != nil {
		return *i.account, nil
	}
	key, err := i.key()
	if err != nil {
		return acme.Account{}, err
	}
	wanted := acme.Account{TermsOfServiceAgreed: true, PrivateKey: key}
	if i.email != "" {
		wanted.Contact = []string{"mailto:" + i.email}
	}
	got, err := i.client.NewAccount(ctx, wanted)
	if p := (acme.Problem{}); errors.As(err, &p) && len(wanted.Contact) > 0 && p.Status < http.StatusInternalServerError {
		wanted.Contact = nil // an address that the authority does not like must not cost the certificates
		got, err = i.client.NewAccount(ctx, wanted)
	}
	if err != nil {
		return acme.Account{}, fmt.Errorf("cannot register: %w", err)
	}
	i.account = &got
	return got, nil
}

// forget registers anew next time if the authority does not know the account any more.
func (i *issuer) forget(err error) {
	var p acme.Problem
	if errors.As(err, &p) && (p.Type == acme.ProblemTypeAccountDoesNotExist || p.Type == acme.ProblemTypeUnauthorized) {
		i.mu.Lock()
		i.account = nil
		i.mu.Unlock()
	}
}

// key reads or makes the account's key.
func (i *issuer) key() (crypto.Signer, error) {
	if b, err := os.ReadFile(i.keyPath); err == nil {
		if block, _ := pem.Decode(b); block != nil {
			if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				if key, ok := k.(*ecdsa.PrivateKey); ok {
					return key, nil
				}
			}
		}
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	b, err := bundle(key, nil)
	if err != nil {
		return nil, err
	}
	return key, write(i.keyPath, b)
}

var errNoAddresses = fmt.Errorf("the authority has no profile %q for addresses", addressProfile)

// issuesFor tells whether the authority may have certificates for a name: it must say so for addresses.
func (i *issuer) issuesFor(ctx context.Context, name string) error {
	if _, err := netip.ParseAddr(name); err != nil {
		return nil
	}
	d, err := i.client.GetDirectory(ctx)
	if err != nil {
		return err
	}
	if d.Meta == nil || d.Meta.Profiles[addressProfile] == "" {
		return errNoAddresses
	}
	return nil
}

// challenges holds the answers by which an authority sees that names lead here.
type challenges struct {
	mu    sync.Mutex
	http  map[string]string           // by path (RFC 8555, section 8.3)
	certs map[string]*tls.Certificate // by name (RFC 8737)
}

func newChallenges() *challenges {
	return &challenges{http: map[string]string{}, certs: map[string]*tls.Certificate{}}
}

func (c *challenges) answer(path string) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.http[path]
	return a, ok
}

// certificate answers a handshake that is for nothing but a challenge.
func (c *challenges) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cert := c.certs[Normal(hello.ServerName)]; cert != nil {
		return cert, nil
	}
	return nil, fmt.Errorf("no challenge is under way for %q", hello.ServerName)
}

// forChallenge: the handshake is for nothing but a challenge.
func forChallenge(hello *tls.ClientHelloInfo) bool {
	return slices.Equal(hello.SupportedProtos, []string{acmez.ACMETLS1Protocol})
}

// httpSolver answers challenges of type http-01.
type httpSolver struct{ *challenges }

// Present implements acmez.Solver.
func (s httpSolver) Present(_ context.Context, c acme.Challenge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.http[c.HTTP01ResourcePath()] = c.KeyAuthorization
	return nil
}

// CleanUp implements acmez.Solver.
func (s httpSolver) CleanUp(_ context.Context, c acme.Challenge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.http, c.HTTP01ResourcePath())
	return nil
}

// tlsSolver answers challenges of type tls-alpn-01.
type tlsSolver struct{ *challenges }

// server is the name by which the authority asks: of an address, that of its reverse entry (RFC 8738, section 6).
func server(c acme.Challenge) string {
	a, err := netip.ParseAddr(c.Identifier.Value)
	if err != nil {
		return Normal(c.Identifier.Value)
	}
	if a.Is4() {
		b := a.As4()
		return fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa", b[3], b[2], b[1], b[0])
	}
	b := a.As16()
	digits := strings.Split(hex.EncodeToString(b[:]), "")
	slices.Reverse(digits)
	return strings.Join(digits, ".") + ".ip6.arpa"
}

// Present implements acmez.Solver.
func (s tlsSolver) Present(_ context.Context, c acme.Challenge) error {
	cert, err := acmez.TLSALPN01ChallengeCert(c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.certs[server(c)] = cert
	return nil
}

// CleanUp implements acmez.Solver.
func (s tlsSolver) CleanUp(_ context.Context, c acme.Challenge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.certs, server(c))
	return nil
}
