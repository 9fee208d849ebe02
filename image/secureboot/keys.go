// Package secureboot makes and uses the keys of UEFI Secure Boot: it signs and checks PE files (Authenticode), and makes
// the signature lists and authenticated variables by which a machine comes to trust our keys.
//
// PK is the platform key, which may replace KEK; KEK, the key exchange key, may replace db; db signs what boots. Building
// an image needs db.key only: PK.key and KEK.key can be kept elsewhere. Sources: UEFI specification 2.10, chapters 8.2
// (variables) and 32 (Secure Boot); Microsoft's "Windows Authenticode Portable Executable Signature Format".
package secureboot

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	keyBits  = 2048 // the one size that all firmware takes
	validity = 20   // years; firmware looks at no clock
	remedy   = `make new keys with "allot key new DIR"`
)

// Signer is a certificate and the key that belongs to it. Key may be in a hardware token.
type Signer struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// Keys are the keys of one fleet, as LoadKeys reads them from a directory.
type Keys struct {
	PK, KEK *x509.Certificate
	DB      Signer
	Auth    map[Variable][]byte // contents of PK.auth, KEK.auth and db.auth, for enrolling
}

// NewKeys makes PK, KEK and db in the directory dir, which must be empty or not exist: for each a private key (.key), a
// self-signed certificate (.crt), both PEM, and the signed variable for enrolling it (.auth). Now is the time that the
// certificates and variables bear. Either all files appear or none.
func NewKeys(dir string, now time.Time) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("cannot make keys: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".keys-*") // mode 0700
	if err != nil {
		return fmt.Errorf("cannot make keys: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := writeKeys(tmp, now); err != nil {
		return fmt.Errorf("cannot make keys: %w", err)
	}
	if err := syscall.Rename(tmp, dir); err != nil { // replaces an empty directory, and no other; os.Rename replaces none
		return fmt.Errorf("cannot make keys in %q, which must be empty or not exist: %w", dir, err)
	}
	return nil
}

func writeKeys(dir string, now time.Time) error {
	signers := map[Variable]Signer{}
	for _, v := range Variables {
		s, err := newSigner(v, now)
		if err != nil {
			return err
		}
		signers[v] = s
	}
	for _, v := range Variables {
		s := signers[v]
		key, err := x509.MarshalPKCS8PrivateKey(s.Key)
		if err != nil {
			return err
		}
		auth, err := SignVariable(v, SignatureList(s.Cert), now, signers[v.authority()])
		if err != nil {
			return err
		}
		for suffix, content := range map[string][]byte{
			".key":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
			".crt":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Cert.Raw}),
			".auth": auth,
		} {
			if err := writeSynced(filepath.Join(dir, string(v)+suffix), content); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeSynced writes a file for its owner alone, and waits until it is on the disk: nobody can make the same key again.
func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

// newSigner makes a key with a self-signed certificate.
func newSigner(v Variable, now time.Time) (Signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return Signer{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Signer{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: fmt.Sprintf("Allotment Secure Boot %s", v)},
		NotBefore:             now,
		NotAfter:              now.AddDate(validity, 0, 0),
		SignatureAlgorithm:    x509.SHA256WithRSA,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Signer{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return Signer{Cert: cert, Key: key}, err
}

// LoadKeys reads what a build needs from a directory that NewKeys made: all files but PK.key and KEK.key.
func LoadKeys(dir string) (*Keys, error) {
	k := &Keys{Auth: map[Variable][]byte{}}
	var authority *x509.Certificate // of the variable before, which signs the next one
	for _, v := range Variables {
		cert, err := LoadCertificate(filepath.Join(dir, string(v)+".crt"))
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, string(v)+".auth")
		auth, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read key: %w; %s", err, remedy)
		}
		enrolled, err := OpenVariable(v, auth, authority)
		if err != nil {
			return nil, fmt.Errorf("cannot use key %q: %w; %s", path, err, remedy)
		}
		if !enrolled.Equal(cert) {
			return nil, fmt.Errorf("cannot use key %q: it is not for %s.crt beside it; %s", path, v, remedy)
		}
		authority = cert
		k.Auth[v] = auth
		switch v {
		case PK:
			k.PK = cert
		case KEK:
			k.KEK = cert
		case DB:
			k.DB.Cert = cert
		}
	}
	path := filepath.Join(dir, "db.key")
	key, err := loadKey(path)
	if err != nil {
		return nil, err
	}
	if public := k.DB.Cert.PublicKey.(*rsa.PublicKey); !public.Equal(key.Public()) {
		return nil, fmt.Errorf("cannot use key %q: it is not the key of db.crt beside it; %s", path, remedy)
	}
	k.DB.Key = key
	return k, nil
}

// LoadCertificate reads a PEM file with an RSA certificate, such as db.crt.
func LoadCertificate(path string) (*x509.Certificate, error) {
	der, err := readPEM(path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("cannot use certificate %q: %w; %s", path, err, remedy)
	}
	if _, ok := cert.PublicKey.(*rsa.PublicKey); !ok {
		return nil, fmt.Errorf("cannot use certificate %q: it has no RSA key; %s", path, remedy)
	}
	return cert, nil
}

func loadKey(path string) (crypto.Signer, error) {
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("cannot use key %q: %w; %s", path, err, remedy)
	}
	if key, ok := key.(*rsa.PrivateKey); ok {
		return key, nil
	}
	return nil, fmt.Errorf("cannot use key %q: it is no RSA key; %s", path, remedy)
}

func readPEM(path, kind string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read key: %w; %s", err, remedy)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("cannot use key %q: it has no PEM block %q; %s", path, kind, remedy)
	}
	return block.Bytes, nil
}
