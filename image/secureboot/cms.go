package secureboot

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// Object identifiers of CMS (RFC 5652), of PKCS #1 (RFC 8017) and of Authenticode.
var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidIndirectData  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidPEImageData   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
)

var (
	sha256Identifier = pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: asn1.NullRawValue}
	rsaIdentifier    = pkix.AlgorithmIdentifier{Algorithm: oidRSA, Parameters: asn1.NullRawValue}
)

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"optional"` // with its tag [0]
}

type signedData struct {
	Version          int
	DigestAlgorithms []pkix.AlgorithmIdentifier `asn1:"set"`
	Content          contentInfo
	Certificates     asn1.RawValue `asn1:"tag:0"` // with its tag
	SignerInfos      []signerInfo  `asn1:"set"`
}

type signerInfo struct {
	Version         int
	Issuer          issuerAndSerial
	DigestAlgorithm pkix.AlgorithmIdentifier
	Attributes      asn1.RawValue `asn1:"optional,tag:0"` // with its tag
	Algorithm       pkix.AlgorithmIdentifier
	Signature       []byte
}

type issuerAndSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values []asn1.RawValue `asn1:"set"`
}

// tagged wraps DER bytes in the context-specific constructed tag [0].
func tagged(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der}
}

// signDetached is a SignedData, without ContentInfo around it, over content that is kept elsewhere: the form that
// authenticated variables have (UEFI 2.10, 8.2.2).
func signDetached(content []byte, signer Signer) ([]byte, error) {
	info, err := newSignerInfo(content, asn1.RawValue{}, signer)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(newSignedData(contentInfo{Type: oidData}, info, signer.Cert))
}

// signContent is a ContentInfo with a SignedData that carries content, a DER value of the given type.
func signContent(kind asn1.ObjectIdentifier, content []byte, signer Signer) ([]byte, error) {
	var value asn1.RawValue
	if _, err := asn1.Unmarshal(content, &value); err != nil {
		return nil, err
	}
	digest := sha256.Sum256(value.Bytes) // without tag and length (RFC 5652, 5.4)
	attributes, err := signedAttributes(kind, digest)
	if err != nil {
		return nil, err
	}
	inner := asn1.RawValue{}
	if _, err := asn1.Unmarshal(attributes, &inner); err != nil {
		return nil, err
	}
	info, err := newSignerInfo(attributes, tagged(inner.Bytes), signer)
	if err != nil {
		return nil, err
	}
	sd, err := asn1.Marshal(newSignedData(contentInfo{kind, tagged(content)}, info, signer.Cert))
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(contentInfo{oidSignedData, tagged(sd)})
}

// signedAttributes is the DER SET OF the attributes that are signed in place of the content. There is no signing time
// among them, so that a signature depends on nothing but the content and the key.
func signedAttributes(kind asn1.ObjectIdentifier, digest [sha256.Size]byte) ([]byte, error) {
	kindDER, err := asn1.Marshal(kind)
	if err != nil {
		return nil, err
	}
	digestDER, err := asn1.Marshal(digest[:])
	if err != nil {
		return nil, err
	}
	return asn1.MarshalWithParams([]attribute{
		{oidContentType, []asn1.RawValue{{FullBytes: kindDER}}},
		{oidMessageDigest, []asn1.RawValue{{FullBytes: digestDER}}},
	}, "set")
}

func newSignedData(content contentInfo, info signerInfo, cert *x509.Certificate) signedData {
	return signedData{
		Version:          1,
		DigestAlgorithms: []pkix.AlgorithmIdentifier{sha256Identifier},
		Content:          content,
		Certificates:     tagged(cert.Raw),
		SignerInfos:      []signerInfo{info},
	}
}

// newSignerInfo signs message, which is the attributes' encoding or, without attributes, the content.
func newSignerInfo(message []byte, attributes asn1.RawValue, signer Signer) (signerInfo, error) {
	if _, ok := signer.Key.Public().(*rsa.PublicKey); !ok {
		return signerInfo{}, fmt.Errorf("cannot sign with a key of type %T: firmware takes RSA only", signer.Key.Public())
	}
	digest := sha256.Sum256(message)
	// PKCS #1 v1.5 is deterministic: the random source only blinds the computation.
	signature, err := signer.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return signerInfo{}, err
	}
	return signerInfo{
		Version:         1,
		Issuer:          issuerAndSerial{asn1.RawValue{FullBytes: signer.Cert.RawIssuer}, signer.Cert.SerialNumber},
		DigestAlgorithm: sha256Identifier,
		Attributes:      attributes,
		Algorithm:       rsaIdentifier,
		Signature:       signature,
	}, nil
}

// verifyDetached checks a SignedData as signDetached makes it.
func verifyDetached(der, content []byte, cert *x509.Certificate) error {
	var sd signedData
	if rest, err := asn1.Unmarshal(der, &sd); err != nil || len(rest) > 0 {
		return errors.New("signature is no CMS SignedData")
	}
	if len(sd.SignerInfos) != 1 || len(sd.SignerInfos[0].Attributes.FullBytes) > 0 || !sd.Content.Type.Equal(oidData) {
		return errors.New("signature is not by one signer over plain data")
	}
	return cert.CheckSignature(x509.SHA256WithRSA, content, sd.SignerInfos[0].Signature)
}

// verifyContent checks a ContentInfo as signContent makes it against the certificates, one of which must be the
// signer's, and returns the signed content.
func verifyContent(der []byte, kind asn1.ObjectIdentifier, certs []*x509.Certificate) ([]byte, error) {
	sd, err := parseSignedData(der)
	if err != nil {
		return nil, err
	}
	info := sd.SignerInfos[0]
	if !sd.Content.Type.Equal(kind) || !info.DigestAlgorithm.Algorithm.Equal(oidSHA256) {
		return nil, fmt.Errorf("signature has content type %v and digest algorithm %v, want %v and SHA-256",
			sd.Content.Type, info.DigestAlgorithm.Algorithm, kind)
	}
	var value asn1.RawValue
	if _, err := asn1.Unmarshal(sd.Content.Content.Bytes, &value); err != nil {
		return nil, fmt.Errorf("signed content: %w", err)
	}
	if err := checkAttributes(info.Attributes.Bytes, kind, sha256.Sum256(value.Bytes)); err != nil {
		return nil, err
	}
	// What is signed are the attributes with the tag of a SET OF in place of [0] (RFC 5652, 5.4).
	message := append([]byte{asn1.TagSet | 0x20}, info.Attributes.FullBytes[1:]...)
	for _, cert := range certs {
		if bytes.Equal(cert.RawIssuer, info.Issuer.Issuer.FullBytes) && cert.SerialNumber.Cmp(info.Issuer.Serial) == 0 {
			return sd.Content.Content.Bytes, cert.CheckSignature(x509.SHA256WithRSA, message, info.Signature)
		}
	}
	return nil, errors.New("signed by an unknown key")
}

func parseSignedData(der []byte) (*signedData, error) {
	var outer contentInfo
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, fmt.Errorf("signature is no CMS: %w", err)
	}
	if !outer.Type.Equal(oidSignedData) {
		return nil, fmt.Errorf("signature is of type %v, want CMS SignedData", outer.Type)
	}
	var sd signedData
	if _, err := asn1.Unmarshal(outer.Content.Bytes, &sd); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	if len(sd.SignerInfos) != 1 || len(sd.SignerInfos[0].Attributes.FullBytes) == 0 {
		return nil, fmt.Errorf("signature has %d signers, want one with signed attributes", len(sd.SignerInfos))
	}
	return &sd, nil
}

// checkAttributes wants that the signed attributes name the content's type and digest.
func checkAttributes(der []byte, kind asn1.ObjectIdentifier, digest [sha256.Size]byte) error {
	want := map[string]any{oidContentType.String(): kind, oidMessageDigest.String(): digest[:]}
	for len(der) > 0 {
		var a attribute
		rest, err := asn1.Unmarshal(der, &a)
		if err != nil {
			return fmt.Errorf("signed attributes: %w", err)
		}
		der = rest
		value, ok := want[a.Type.String()]
		if !ok {
			continue
		}
		wantDER, err := asn1.Marshal(value)
		if err != nil {
			return err
		}
		if len(a.Values) != 1 || !bytes.Equal(a.Values[0].FullBytes, wantDER) {
			return fmt.Errorf("signed attribute %v does not fit the content", a.Type)
		}
		delete(want, a.Type.String())
	}
	if len(want) > 0 {
		return errors.New("signature lacks a signed attribute")
	}
	return nil
}
