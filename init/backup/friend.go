package backup

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"allotment/api"
)

// friendPath is where another box's gateway has its module backups.
const friendPath = "/backups"

const friendTime = 30 * time.Second

func checkFriend(t api.BackupTarget) error {
	u, err := checkURL(t.Address)
	switch {
	case err != nil:
		return err
	case u.Scheme != "https":
		return api.Errorf(api.Invalid, "the address of the other box must begin with https://, as a password goes there")
	case strings.Trim(u.Path, "/") != "":
		return api.Errorf(api.Invalid, "the address of the other box ends with its name")
	case !userForm.MatchString(t.User) || t.Secret == "":
		return api.Errorf(api.Invalid, "the other box needs the name under which it knows this one, and the password")
	}
	return nil
}

// knowFriend decides by what the other box's certificate is trusted: publicly, or by the box's own authority, if its fingerprint
// is the one that the officer has entered.
func knowFriend(ctx context.Context, t *api.BackupTarget) error {
	u, err := checkURL(t.Address)
	if err != nil {
		return err
	}
	chain, err := chainOf(ctx, u)
	if err != nil {
		return api.Errorf(api.Conflict, "cannot reach the other box: %v", err)
	}
	own := chain[len(chain)-1] // a gateway sends its authority along
	given := t.HostKey
	t.HostKey, t.Authority = "", ""
	switch {
	case verify(u.Hostname(), chain, nil) == nil:
		return nil
	case !own.IsCA || own.CheckSignatureFrom(own) != nil:
		return api.Errorf(api.Conflict, "the certificate of %s is not trusted, and has no authority of its own", u.Host)
	case given == "":
		return api.Errorf(api.Conflict, "the certificate of %s is of that box's own authority, with the fingerprint %s. "+
			"Compare it with that box's officers, and enter it if it is the same", u.Host, fingerprint(own))
	case plain(given) != plain(fingerprint(own)):
		return api.Errorf(api.Conflict, "the certificate of %s is of another authority, with the fingerprint %s. "+
			"Somebody else may be answering: ask that box's officers", u.Host, fingerprint(own))
	}
	roots := x509.NewCertPool()
	roots.AddCert(own)
	if err := verify(u.Hostname(), chain, roots); err != nil {
		return api.Errorf(api.Conflict, "the certificate of %s does not fit: %v", u.Host, err)
	}
	t.HostKey = fingerprint(own)
	t.Authority = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Raw}))
	return nil
}

// chainOf are the certificates of a server that is not trusted yet: nothing is sent to it.
func chainOf(ctx context.Context, u *url.URL) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, friendTime)
	defer cancel()
	port := u.Port()
	if port == "" {
		port = "443"
	}
	d := tls.Dialer{Config: &tls.Config{ServerName: u.Hostname(), InsecureSkipVerify: true}} // knowFriend verifies
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates, nil
}

// verify tells whether the chain is good for the name; nil roots are the system's.
func verify(name string, chain []*x509.Certificate, roots *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between})
	return err
}

// fingerprint is that of a certificate, as browsers show it.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":")
}

// plain is a fingerprint as it was typed, without what may differ.
func plain(fingerprint string) string {
	return strings.ToLower(strings.NewReplacer(":", "", " ", "", "\n", "").Replace(fingerprint))
}

// friendURL is the repository of the box that the other one knows as user.
func friendURL(t api.BackupTarget) string {
	return "rest:" + strings.TrimRight(t.Address, "/") + friendPath + "/" + t.User + "/"
}
