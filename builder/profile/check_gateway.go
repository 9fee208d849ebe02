package profile

import (
	"crypto/x509"
	"encoding/pem"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"

	"allotment/image"
)

// checkACME checks who issues certificates, and puts the text of the roots to trust in place of their file's name. RFC 8555,
// section 6.1, wants HTTPS.
func checkACME(d *document, a *image.ACME, folder string) {
	const key = "gateway.acme"
	if u, err := url.Parse(a.Directory); a.Directory != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		d.fault(key+".directory", "want https:// and the path of the authority's directory",
			"directory %q is not a usable address", a.Directory)
	}
	if m, err := mail.ParseAddress(a.Email); a.Email != "" && (err != nil || m.Address != a.Email) {
		d.fault(key+".email", "want one like office@club.example", "email %q is not an address", a.Email)
	}
	if a.Root == "" {
		return
	}
	if a.Directory == "" {
		d.missing(key+".directory", "name the authority whose roots these are, or leave root out")
	}
	const remedy = "name a file with certificates in PEM, relative to the profile"
	text, err := os.ReadFile(filepath.Join(folder, a.Root))
	switch {
	case err != nil:
		d.fault(key+".root", remedy, "%q cannot be read", a.Root)
	case !certificates(text):
		d.fault(key+".root", remedy, "%q holds something else than certificates", a.Root)
	}
	a.Root = string(text)
}

// certificates tells whether the text is one certificate in PEM or more, and nothing else: a private key would be in every
// image.
func certificates(text []byte) bool {
	n := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if _, err := x509.ParseCertificate(block.Bytes); err != nil || block.Type != "CERTIFICATE" {
			return false
		}
		n++
	}
	return n > 0
}
