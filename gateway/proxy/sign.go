package proxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"

	"github.com/smallstep/pkcs7"

	"allotment/gateway/certs"
)

const (
	profileType = "application/x-apple-aspen-config"
	mostProfile = 1 << 20 // bytes
)

// sign wraps a profile for Apple's devices that the portal offers in a CMS SignedData (RFC 5652 section 5) by the certificate of
// the host name it is offered on, so that devices show it as verified by that name. The portal needs no key for it, and gets
// no more said in the name than what it answers there. A profile that cannot be signed goes as it is, and devices warn of it.
func (g *Gateway) sign(r *http.Response) error {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != profileType || r.StatusCode != http.StatusOK || r.Request.TLS == nil || g.keeper == nil {
		return nil
	}
	profile, err := io.ReadAll(io.LimitReader(r.Body, mostProfile+1))
	if err == nil && len(profile) > mostProfile {
		err = errors.New("the profile is too long")
	}
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return err
	}
	host := hostOf(r.Request)
	signed, err := signedData(g.keeper, host, profile)
	if err != nil {
		g.log.Warn("a profile is not signed", "host", host, "error", err)
		signed = profile
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(signed)), int64(len(signed))
	r.Header.Set("Content-Length", strconv.Itoa(len(signed)))
	return nil
}

// signedData signs content by the host name's certificate.
func signedData(k *certs.Keeper, host string, content []byte) ([]byte, error) {
	c, err := k.Certificate(&tls.ClientHelloInfo{ServerName: host})
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for _, der := range c.Certificate {
		one, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("cannot read a certificate of %q: %w", host, err)
		}
		chain = append(chain, one)
	}
	s, err := pkcs7.NewSignedData(content)
	if err != nil {
		return nil, err
	}
	s.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := s.AddSignerChain(chain[0], c.PrivateKey, chain[1:], pkcs7.SignerInfoConfig{}); err != nil {
		return nil, fmt.Errorf("cannot sign by the certificate of %q: %w", host, err)
	}
	return s.Finish()
}
