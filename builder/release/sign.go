package release

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/sigstore/sigstore/pkg/signature"
	tuf "github.com/theupdateframework/go-tuf/v2/metadata"
)

// Keys are private keys, wherever they are. Keyring is the one of files and programs.
type Keys interface {
	// Public returns the public key of the given name; the error is fs.ErrNotExist if there is none.
	Public(name string) (crypto.PublicKey, error)
	// New makes a key with a name that none has.
	New(name string) (crypto.PublicKey, error)
	// Next is the name for the key that a role gets after those that it had.
	Next(role string) (string, error)
	// Signer returns the private half of a public key.
	Signer(ctx context.Context, public crypto.PublicKey) (crypto.Signer, error)
}

// signers are keys of which a threshold must sign.
type signers struct {
	keys      []*tuf.Key
	threshold int
	optional  bool // as many as are at hand: keys that are being replaced and may be lost
}

// sign puts the signatures of every group on m, in place of those that it has.
func sign[T tuf.Roles](ctx context.Context, keys Keys, name string, m *tuf.Metadata[T], groups ...signers) error {
	m.ClearSignatures()
	signed := map[string]bool{}
	for _, g := range groups {
		have := 0
		var missing error
		for _, key := range g.keys {
			if have >= g.threshold {
				break
			}
			id, err := key.ID()
			if err != nil {
				return err
			}
			if !signed[id] {
				err = signWith(ctx, keys, m, key)
			}
			if err != nil {
				missing = errors.Join(missing, fmt.Errorf("key %s: %w", id[:12], err))
				continue
			}
			signed[id] = true
			have++
		}
		if have < g.threshold && !g.optional {
			return fmt.Errorf("cannot sign %s: %d of %d keys are at hand; name the folders that hold the others: %w",
				name, have, g.threshold, missing)
		}
	}
	return nil
}

func signWith[T tuf.Roles](ctx context.Context, keys Keys, m *tuf.Metadata[T], key *tuf.Key) error {
	public, err := key.ToPublicKey()
	if err != nil {
		return err
	}
	s, err := keys.Signer(ctx, public)
	if err != nil {
		return err
	}
	signer := &tufSigner{Signer: s}
	if _, err = m.Sign(signer); signer.err != nil {
		return signer.err
	}
	return err
}

// tufSigner is a crypto.Signer as go-tuf wants it.
type tufSigner struct {
	crypto.Signer
	err error // of the signing, which go-tuf does not pass on
}

// PublicKey implements signature.Signer.
func (s *tufSigner) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return s.Public(), nil
}

// SignMessage implements signature.Signer.
func (s *tufSigner) SignMessage(r io.Reader, _ ...signature.SignOption) ([]byte, error) {
	message, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	hash := crypto.Hash(0) // Ed25519 signs the message itself
	if _, ok := s.Public().(*ecdsa.PublicKey); ok {
		hash = crypto.SHA256
	}
	sig, err := crypto.SignMessage(s.Signer, rand.Reader, message, hash)
	s.err = err
	return sig, err
}
