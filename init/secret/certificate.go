package secret

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"allotment/image"
	"allotment/init/durable"
	"allotment/init/plan"
)

// How long certificates last.
const (
	lifetime = 13 * 30 * 24 * time.Hour // from their making
	renewal  = 30 * 24 * time.Hour      // before their end
	backdate = 24 * time.Hour           // for clients whose clocks are late
)

// pair is a private key and the certificates from its own up to the box's CA, in PEM.
type pair struct{ key, chain string }

// caFile holds key and certificate of the box's own CA. No module has a name with a dot.
const caFile = "ca.pem"

// Authority returns the certificate of the box's own CA in PEM: what clients are to trust until there are certificates of
// a public one. It is made at the first call, and never ends.
func (s *Store) Authority() ([]byte, error) {
	_, cert, err := s.authority()
	if err != nil {
		return nil, fmt.Errorf("cannot make the box's certificate authority: %w", err)
	}
	return pemBlock("CERTIFICATE", cert.Raw), nil
}

func (s *Store) authority() (*ecdsa.PrivateKey, *x509.Certificate, error) {
	p, err := readPair(filepath.Join(s.dir, caFile))
	if errors.Is(err, fs.ErrNotExist) {
		p, err = newAuthority()
		if err == nil {
			err = p.save(filepath.Join(s.dir, caFile))
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return p.parse()
}

// newAuthority makes a CA whose certificate does not depend on the clock, which may be wrong by years on the first boot.
func newAuthority() (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Allotment box " + newHex()[:8]},
		NotBefore:             time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // none, RFC 5280 section 4.1.2.5
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	return sign(template, key, template, key, nil)
}

// namesOf are the names that a module's certificate is for: that which clients use, and that inside the box.
func namesOf(m *plan.Module, declared plan.Secret, o image.Organisation) []string {
	host := o.Domain
	if declared.Host != "" {
		host = declared.Host + "." + o.Domain
	}
	return []string{host, m.Name + ".internal"}
}

func (s *Store) ensureCertificate(path string, names []string, now time.Time) (pair, error) {
	caKey, ca, err := s.authority()
	if err != nil {
		return pair{}, err
	}
	p, err := readPair(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return pair{}, err
	}
	if err == nil && p.good(ca, names, now) {
		return p, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: names[0]},
		DNSNames:  names,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if p, err = sign(template, key, ca, caKey, ca.Raw); err != nil {
		return pair{}, err
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return pair{}, err
	}
	return p, p.save(path)
}

// good tells whether the certificate is one of the CA for just these names, and will be for a while. One that is damaged
// is not.
func (p pair) good(ca *x509.Certificate, names []string, now time.Time) bool {
	_, cert, err := p.parse()
	return err == nil && cert.CheckSignatureFrom(ca) == nil && slices.Equal(cert.DNSNames, names) &&
		!now.Before(cert.NotBefore) && now.Before(cert.NotAfter.Add(-renewal))
}

// sign makes the certificate of key, and puts those that are given behind it.
func sign(template *x509.Certificate, key *ecdsa.PrivateKey, parent *x509.Certificate, signer *ecdsa.PrivateKey,
	above []byte) (pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return pair{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pair{}, err
	}
	p := pair{key: string(pemBlock("PRIVATE KEY", private)), chain: string(pemBlock("CERTIFICATE", der))}
	if above != nil {
		p.chain += string(pemBlock("CERTIFICATE", above))
	}
	return p, nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// parse returns the key and the first certificate, which must be that of the key.
func (p pair) parse() (*ecdsa.PrivateKey, *x509.Certificate, error) {
	k, _ := pem.Decode([]byte(p.key))
	c, _ := pem.Decode([]byte(p.chain))
	if k == nil || c == nil {
		return nil, nil, errors.New("it is not PEM")
	}
	private, err := x509.ParsePKCS8PrivateKey(k.Bytes)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(c.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, ok := private.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, errors.New("key and certificate do not belong together")
	}
	return key, cert, nil
}

// A pair is kept in one file, so that a cut never leaves a key beside the certificate of another.

func (p pair) save(path string) error { return durable.WriteFile(path, []byte(p.key+p.chain), 0o600) }

func readPair(path string) (pair, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return pair{}, err
	}
	return splitPair(b), nil
}

func splitPair(b []byte) pair {
	key, chain, found := strings.Cut(string(b), "-----BEGIN CERTIFICATE-----")
	if !found {
		return pair{key: key} // damaged, as parse will tell
	}
	return pair{key: key, chain: "-----BEGIN CERTIFICATE-----" + chain}
}
