package sso

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"allotment/portal/store"
)

// Life of a key that signs ID tokens: clients hear of it a day before it is first used, and can check what it signed for
// as long after its last use as any ID token lasts, and more.
const (
	keyAhead  = 24 * time.Hour
	keyUsed   = 30 * 24 * time.Hour
	keyAfter  = 24 * time.Hour
	keyBits   = 2048
	algorithm = jose.RS256 // which every client knows (OpenID Connect Core 15.1)
)

// signingKey is a key as it is stored.
type signingKey struct {
	Created time.Time `json:"created"`
	Private []byte    `json:"private"` // PKCS #1
}

var signingKeys = store.NewBucket[signingKey]("sso-keys")

// key is a key for package op: both halves, or the public one.
type key struct {
	id      string
	created time.Time
	half    any
	private *rsa.PrivateKey
}

func (k key) SignatureAlgorithm() jose.SignatureAlgorithm { return algorithm }
func (k key) Algorithm() jose.SignatureAlgorithm          { return algorithm }
func (k key) Use() string                                 { return "sig" }
func (k key) ID() string                                  { return k.id }
func (k key) Key() any                                    { return k.half }

// keys are all that are good, the newest last. A new one is made in time, and what is too old removed.
func (s *SSO) keys() ([]key, error) {
	now := s.Now().UTC()
	good := s.goodKeys(now)
	if all, due, err := good(); err != nil || !due {
		return all, err
	}
	made, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	err = s.DB.Update(func(tx *store.Tx) error {
		all, due, err := s.readKeys(tx, now)
		if err != nil || !due { // somebody else was quicker
			return err
		}
		created := now
		if len(all) == 0 { // none before it: it is needed at once
			created = now.Add(-keyAhead)
		}
		var failed error
		err = signingKeys.All(tx, "", func(id string, k signingKey) bool {
			if !keyGood(k.Created, now) {
				failed = signingKeys.Delete(tx, id)
			}
			return failed == nil
		})
		if err != nil || failed != nil {
			return fmt.Errorf("cannot remove old keys: %w (%w)", err, failed)
		}
		return signingKeys.Put(tx, rand.Text()[:16], signingKey{created, x509.MarshalPKCS1PrivateKey(made)})
	})
	if err != nil {
		return nil, err
	}
	all, _, err := good()
	return all, err
}

func (s *SSO) goodKeys(now time.Time) func() ([]key, bool, error) {
	return func() (all []key, due bool, err error) {
		err = s.DB.View(func(tx *store.Tx) (err error) {
			all, due, err = s.readKeys(tx, now)
			return err
		})
		return all, due, err
	}
}

// keyGood says whether a key of some age is used, or will be, or has signed what may be good still.
func keyGood(created, now time.Time) bool {
	age := now.Sub(created)
	return age < keyAhead+keyUsed+keyAhead+keyAfter && age > -2*keyAhead // not one of a clock that was wrong
}

// readKeys are the keys that are good, and whether one more is due.
func (s *SSO) readKeys(tx *store.Tx, now time.Time) (all []key, due bool, err error) {
	var failed error
	err = signingKeys.All(tx, "", func(id string, k signingKey) bool {
		if !keyGood(k.Created, now) {
			return true
		}
		private, err := x509.ParsePKCS1PrivateKey(k.Private)
		if err != nil {
			failed = fmt.Errorf("cannot read key %q: %w", id, err)
			return false
		}
		all = append(all, key{id, k.Created, private, private})
		return true
	})
	if err == nil {
		err = failed
	}
	slices.SortFunc(all, func(a, b key) int { return a.created.Compare(b.created) })
	due = len(all) == 0 || now.Sub(all[len(all)-1].created) >= keyUsed
	return all, due, err
}

// signing is the key to sign with: the newest of which clients have heard.
func (s *SSO) signing() (key, error) {
	all, err := s.keys()
	if err != nil {
		return key{}, err
	}
	for _, k := range slices.Backward(all) {
		if s.Now().Sub(k.created) >= keyAhead {
			return k, nil
		}
	}
	return all[0], nil
}
