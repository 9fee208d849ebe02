package secureboot

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
)

// Variable is one of the UEFI variables that hold the trusted keys.
type Variable string

// The variables that we fill; their names are those of the key files too.
const (
	PK  Variable = "PK"
	KEK Variable = "KEK"
	DB  Variable = "db"
)

// Variables lists the variables in the order of authority.
var Variables = [...]Variable{PK, KEK, DB}

// VariableAttributes are those that all three variables have: non-volatile, for boot services and at run time, with
// time-based authentication (UEFI 2.10, 8.2).
const VariableAttributes uint32 = 0x27

// GUID is an EFI GUID in its binary form: the first three fields are little endian.
type GUID [16]byte

// MustGUID converts the text form of a GUID that is known to be right.
func MustGUID(s string) GUID {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 {
		panic("secureboot: malformed GUID " + s)
	}
	return GUID{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
}

var (
	globalVariable   = MustGUID("8be4df61-93ca-11d2-aa0d-00e098032b8c") // EFI_GLOBAL_VARIABLE
	securityDatabase = MustGUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f") // EFI_IMAGE_SECURITY_DATABASE_GUID
	certX509         = MustGUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072") // EFI_CERT_X509_GUID
	certPKCS7        = MustGUID("4aafd29d-68df-49ee-8aa9-347d375665a7") // EFI_CERT_TYPE_PKCS7_GUID
	owner            = MustGUID("0f5bd8e9-6f0e-4d6c-9a51-3f1c6f2c1a77") // ours: who put a key into a list
)

// Vendor is the name space of the variable.
func (v Variable) Vendor() GUID {
	if v == DB {
		return securityDatabase
	}
	return globalVariable
}

// authority is the variable whose key signs changes of v once a PK is set.
func (v Variable) authority() Variable {
	if v == DB {
		return KEK
	}
	return PK
}

// UTF16 is the variable's name as firmware has it, without the final zero.
func (v Variable) UTF16() []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(v)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// SignatureList is an EFI_SIGNATURE_LIST with one certificate (UEFI 2.10, 32.4.1): the content of a variable.
func SignatureList(cert *x509.Certificate) []byte {
	const header = 28
	signature := len(owner) + len(cert.Raw)
	b := append([]byte{}, certX509[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(header+signature))
	b = binary.LittleEndian.AppendUint32(b, 0) // no further header
	b = binary.LittleEndian.AppendUint32(b, uint32(signature))
	b = append(b, owner[:]...)
	return append(b, cert.Raw...)
}

// SignVariable returns what SetVariable takes to write content to v (UEFI 2.10, 8.2.2): an
// EFI_VARIABLE_AUTHENTICATION_2 by signer, and the content. Firmware refuses a time that is not later than that of the
// variable's present content.
func SignVariable(v Variable, content []byte, at time.Time, signer Signer) ([]byte, error) {
	stamp := Time(at)
	cms, err := signDetached(signedBytes(v, content, stamp), signer)
	if err != nil {
		return nil, fmt.Errorf("cannot sign variable %s: %w", v, err)
	}
	var b bytes.Buffer
	b.Write(stamp[:])
	b.Write(binary.LittleEndian.AppendUint32(nil, uint32(8+len(certPKCS7)+len(cms)))) // WIN_CERTIFICATE.dwLength
	b.Write([]byte{0x00, 0x02, 0xf1, 0x0e})                                           // revision 2.0, WIN_CERT_TYPE_EFI_GUID
	b.Write(certPKCS7[:])
	b.Write(cms)
	b.Write(content)
	return b.Bytes(), nil
}

// Time is an EFI_TIME in UTC, with the fields zero that authenticated variables want zero (UEFI 2.10, 8.2.2).
func Time(t time.Time) [16]byte {
	t = t.UTC()
	var b [16]byte
	binary.LittleEndian.PutUint16(b[:], uint16(t.Year()))
	b[2], b[3], b[4], b[5], b[6] = byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second())
	return b
}

// OpenVariable checks what SignVariable made with a content of one certificate, and returns that certificate. Authority
// is the certificate that must have signed it; nil means the certificate itself, as for PK.
func OpenVariable(v Variable, auth []byte, authority *x509.Certificate) (*x509.Certificate, error) {
	const stamp, certificate, list = 16, 24, 28 + 16
	if len(auth) < stamp+certificate || GUID(auth[stamp+8:]) != certPKCS7 {
		return nil, errors.New("no authenticated variable")
	}
	at := stamp + int64(binary.LittleEndian.Uint32(auth[stamp:]))
	if at < stamp+certificate || at+list > int64(len(auth)) || GUID(auth[at:]) != certX509 {
		return nil, errors.New("authenticated variable holds no certificate")
	}
	content := auth[at:]
	cert, err := x509.ParseCertificate(content[list:])
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(content, SignatureList(cert)) {
		return nil, errors.New("authenticated variable holds more than one certificate of ours")
	}
	if authority == nil {
		authority = cert
	}
	if err := verifyDetached(auth[stamp+certificate:at], signedBytes(v, content, [16]byte(auth)), authority); err != nil {
		return nil, fmt.Errorf("authenticated variable %s: %w", v, err)
	}
	return cert, nil
}

// signedBytes is what the signature of an authenticated variable covers.
func signedBytes(v Variable, content []byte, stamp [16]byte) []byte {
	vendor := v.Vendor()
	b := append(v.UTF16(), vendor[:]...)
	b = binary.LittleEndian.AppendUint32(b, VariableAttributes)
	b = append(b, stamp[:]...)
	return append(b, content...)
}
