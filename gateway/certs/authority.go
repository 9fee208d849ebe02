package certs

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	localLife     = 90 * 24 * time.Hour // devices refuse more than 397 days
	localLeft     = 30 * 24 * time.Hour // when it is renewed
	skew          = 24 * time.Hour      // by which visitors' clocks may be slow
)

// epoch is a time that has been: a clock that is before it is wrong.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// locals are what the box's own authority may always certify: names that are nobody's, and networks that are
// everybody's. An address that a router gives anew so needs no new authority.
var (
	localDomains  = []string{"internal", "local", "localhost"}
	localNetworks = []string{
		"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8",
		"fc00::/7", "fe80::/10", "fec0::/10", "::1/128",
	}
)

// own is the box's authority and the certificate of all its names.
type own struct {
	authority *tls.Certificate
	local     *tls.Certificate
}

// loadOwn reads both from the folder, and makes them anew if they do not fit names or the time. What cannot be read
// is made anew too: a box without a certificate could not be repaired from a browser.
func loadOwn(folder string, names []string, now time.Time) (own, error) {
	if now.Before(epoch) {
		now = epoch
	}
	path := filepath.Join(folder, "authority.pem")
	authority, _ := load(path)
	var err error
	if authority == nil || !mayCertify(authority.Leaf, names, now) {
		if authority, err = newAuthority(path, names, now); err != nil {
			return own{}, fmt.Errorf("cannot make the box's own authority: %w", err)
		}
	}
	path = filepath.Join(folder, "local.pem")
	local, _ := load(path)
	if local == nil || !fits(local.Leaf, authority.Leaf, names, now) {
		if local, err = newLocal(path, authority, names, now); err != nil {
			return own{}, fmt.Errorf("cannot make the box's own certificate: %w", err)
		}
	}
	return own{authority, local}, nil
}

// mayCertify tells whether an authority is good for these names and all that it would be asked to make.
func mayCertify(c *x509.Certificate, names []string, now time.Time) bool {
	return now.After(c.NotBefore) && now.Add(localLife).Before(c.NotAfter) &&
		!slices.ContainsFunc(names, func(n string) bool { return !permits(c, n) })
}

// permits follows RFC 5280, section 4.2.1.10.
func permits(c *x509.Certificate, name string) bool {
	if ip := net.ParseIP(name); ip != nil {
		return slices.ContainsFunc(c.PermittedIPRanges, func(n *net.IPNet) bool { return n.Contains(ip) })
	}
	return slices.ContainsFunc(c.PermittedDNSDomains, func(d string) bool {
		return name == d || strings.HasSuffix(name, "."+d)
	})
}

func fits(c, authority *x509.Certificate, names []string, now time.Time) bool {
	return c.CheckSignatureFrom(authority) == nil && now.After(c.NotBefore) && now.Add(localLeft).Before(c.NotAfter) &&
		slices.Equal(normal(sans(c)), names)
}

// sans are the names that a certificate is for.
func sans(c *x509.Certificate) []string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

func newAuthority(path string, names []string, now time.Time) (*tls.Certificate, error) {
	c := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Allotment server, own authority", SerialNumber: rand.Text()[:8]},
		NotBefore: now.Add(-skew), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: slices.Clone(localDomains),
	}
	for _, n := range localNetworks {
		_, network, err := net.ParseCIDR(n)
		if err != nil {
			return nil, err
		}
		c.PermittedIPRanges = append(c.PermittedIPRanges, network)
	}
	for _, n := range names {
		if a, err := netip.ParseAddr(n); err != nil {
			c.PermittedDNSDomains = append(c.PermittedDNSDomains, n)
		} else {
			bits := a.BitLen()
			c.PermittedIPRanges = append(c.PermittedIPRanges, &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, bits)})
		}
	}
	return certify(path, c, nil)
}

func newLocal(path string, authority *tls.Certificate, names []string, now time.Time) (*tls.Certificate, error) {
	c := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Allotment server"},
		NotBefore: now.Add(-skew), NotAfter: now.Add(localLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	return certify(path, c, authority)
}

// certify makes a key and a certificate for it, signed by the authority or by itself if that is nil, and writes both
// to path.
func certify(path string, c *x509.Certificate, by *tls.Certificate) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	issuer, signer := c, crypto.Signer(key)
	var chain bytes.Buffer
	if by != nil {
		issuer, signer = by.Leaf, by.PrivateKey.(crypto.Signer)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, issuer, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	if by != nil {
		pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: by.Leaf.Raw})
	}
	b, err := bundle(key, chain.Bytes())
	if err != nil {
		return nil, err
	}
	if err := write(path, b); err != nil {
		return nil, err
	}
	return parse(b)
}
