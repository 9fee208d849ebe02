package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// Digest names bytes by their SHA-256, written "sha256:" and 64 lower-case hexadecimal digits as in the OCI image
// specification. Whether it is the hash of a file's bytes or its fs-verity digest is said where it is used.
type Digest string

const digestPrefix = "sha256:"

// NewDigest returns the digest with the given raw SHA-256 value.
func NewDigest(sum [sha256.Size]byte) Digest {
	return Digest(digestPrefix + hex.EncodeToString(sum[:]))
}

// ParseDigest checks that s has the one form of a Digest.
func ParseDigest(s string) (Digest, error) {
	h, ok := strings.CutPrefix(s, digestPrefix)
	if !ok || len(h) != 2*sha256.Size || strings.ToLower(h) != h {
		return "", fmt.Errorf("cannot use digest %q: want sha256: and 64 lower-case hexadecimal digits", s)
	}
	if _, err := hex.DecodeString(h); err != nil {
		return "", fmt.Errorf("cannot use digest %q: %w", s, err)
	}
	return Digest(s), nil
}

// DigestOf reads r to its end and returns the digest and the number of bytes.
func DigestOf(r io.Reader) (Digest, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return "", n, err
	}
	return NewDigest([sha256.Size]byte(h.Sum(nil))), n, nil
}

// UnmarshalText implements encoding.TextUnmarshaler with ParseDigest.
func (d *Digest) UnmarshalText(b []byte) error {
	v, err := ParseDigest(string(b))
	*d = v
	return err
}

// Hex is the digest without its algorithm prefix; file names in stores use it.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), digestPrefix) }

// Bytes is the raw 32-byte value; it panics if d was not made by this package's functions.
func (d Digest) Bytes() []byte {
	b, err := hex.DecodeString(d.Hex())
	if err != nil || len(b) != sha256.Size {
		panic("image: malformed digest " + string(d))
	}
	return b
}

// Short is the first 12 digits, for people.
func (d Digest) Short() string {
	h := d.Hex()
	return h[:min(12, len(h))]
}
