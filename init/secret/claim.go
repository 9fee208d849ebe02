package secret

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"allotment/init/durable"
)

// claimFile holds the claim code, and nothing once the box is claimed. No module has a name with a dot.
const claimFile = "claim.code"

// claimAlphabet is Crockford's base 32, without letters that are taken for others.
const claimAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

const claimLength = 12 // characters: 60 bits

// NewClaim draws a claim code, such as 3F7K-9QXM-02TA.
func NewClaim() string {
	var b [claimLength]byte
	rand.Read(b[:]) // never fails
	for i := range b {
		b[i] = claimAlphabet[b[i]%32]
	}
	return groups(string(b[:]))
}

func groups(code string) string { return code[:4] + "-" + code[4:8] + "-" + code[8:] }

// ParseClaim reads a claim code as people write it: small letters, O for 0, I and L for 1, with or without hyphens and spaces.
func ParseClaim(text string) (string, error) {
	alike := strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1")
	code := alike.Replace(strings.ToUpper(strings.TrimSpace(text)))
	if len(code) != claimLength || strings.Trim(code, claimAlphabet) != "" {
		return "", errors.New("a claim code is twelve letters and digits, such as 3F7K-9QXM-02TA")
	}
	return groups(code), nil
}

// Claim returns the code by which whoever has the box shows that it is theirs. decided tells whether there is one; an empty
// code that is decided says that the box is claimed.
func (s *Store) Claim() (code string, decided bool, err error) {
	b, err := os.ReadFile(filepath.Join(s.dir, claimFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("cannot read the claim code: %w", err)
	}
	return strings.TrimSpace(string(b)), true, nil
}

// DecideClaim makes code the claim code for good, unless one is decided already, and returns the one that counts.
func (s *Store) DecideClaim(code string) (string, error) {
	before, decided, err := s.Claim()
	if err != nil || decided {
		return before, err
	}
	return code, s.writeClaim(code + "\n")
}

// VoidClaim notes that the box is claimed: its code is worth nothing from now on.
func (s *Store) VoidClaim() error { return s.writeClaim("") }

func (s *Store) writeClaim(content string) error {
	if err := durable.WriteFile(filepath.Join(s.dir, claimFile), []byte(content), 0o600); err != nil {
		return fmt.Errorf("cannot keep the claim code: %w", err)
	}
	return nil
}
