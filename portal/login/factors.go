package login

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"

	"allotment/portal/directory"
	"allotment/portal/store"
)

// factors is what a person can log in with besides her password, which is in the directory.
type factors struct {
	Handle   []byte       `json:"handle"` // by which passkeys know her: random, so that it says nothing of her
	Passkeys []passkey    `json:"passkeys,omitempty"`
	TOTP     *totpKey     `json:"totp,omitempty"`
	Printed  []string     `json:"printed,omitempty"` // hashes of the codes that are left
	PrintedT time.Time    `json:"printedTime,omitzero"`
	Officer  *officerCode `json:"officer,omitempty"`
	Address  string       `json:"address,omitempty"` // elsewhere, in small letters, that she has shown to be hers
	Changed  time.Time    `json:"changed,omitzero"`  // when her password was set, since there are links for a new one
}

// passkey is a passkey as it is stored.
type passkey struct {
	Label      string              `json:"label"`
	RP         string              `json:"rp"` // host name that it is good for
	Created    time.Time           `json:"created"`
	Used       time.Time           `json:"used,omitzero"`
	Credential webauthn.Credential `json:"credential"`
}

func (k *passkey) id() string { return hex.EncodeToString(k.Credential.ID) }

var (
	allFactors = store.NewBucket[factors]("login-factors")
	handles    = store.NewBucket[string]("login-handles") // handle in hex -> person
)

// factors are those of a person, empty if she has none.
func (l *Login) factors(person string) (f factors, err error) {
	err = l.DB.View(func(tx *store.Tx) error {
		f, err = allFactors.Get(tx, person)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return factors{}, nil
	}
	return f, err
}

// change lets f change the factors of a person. What f returns undoes it.
func (l *Login) change(person string, f func(*factors) error) error {
	return l.DB.Update(func(tx *store.Tx) error {
		v, err := allFactors.Get(tx, person)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if v.Handle == nil {
			v.Handle = make([]byte, 32)
			rand.Read(v.Handle)
			if err := handles.Put(tx, hex.EncodeToString(v.Handle), person); err != nil {
				return err
			}
		}
		if err := f(&v); err != nil {
			return err
		}
		return allFactors.Put(tx, person, v)
	})
}

// Forget removes all that a person could log in with besides her password, links in mails too, and ends her sessions: for one
// who is purged, so that nobody who gets her name later has her keys too.
func (l *Login) Forget(person string) error {
	err := l.DB.Update(func(tx *store.Tx) error {
		err := removeLinks(tx, func(k link) bool { return k.Person == person })
		if err != nil {
			return err
		}
		f, err := allFactors.Get(tx, person)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return errors.Join(handles.Delete(tx, hex.EncodeToString(f.Handle)), allFactors.Delete(tx, person))
	})
	return errors.Join(err, l.Sessions.EndAll(person))
}

// Gone forgets everybody that the directory does not know any more, as Forget does: whom a power cut has kept from being
// forgotten. It returns their names.
func (l *Login) Gone(ctx context.Context) ([]string, error) {
	known, err := l.Sessions.People()
	if err != nil {
		return nil, err
	}
	err = l.DB.View(func(tx *store.Tx) error {
		return allFactors.All(tx, "", func(name string, _ factors) bool { known = append(known, name); return true })
	})
	if err != nil || len(known) == 0 {
		return nil, err
	}
	all, err := l.Directory.People(ctx)
	if err != nil || len(all) == 0 { // a directory without anybody is one that has lost them
		return nil, err
	}
	left := map[string]bool{}
	for _, p := range all {
		left[p.Name] = true
	}
	var gone []string
	for _, name := range known {
		if left[name] {
			continue
		}
		left[name] = true
		_, err := l.Directory.Person(ctx, name) // who came since
		if err == nil {
			continue
		}
		if !errors.Is(err, directory.ErrNotFound) {
			return gone, err
		}
		if err := l.Forget(name); err != nil {
			return gone, err
		}
		gone = append(gone, name)
	}
	return gone, nil
}

// Passkey is a passkey as its owner sees it.
type Passkey struct {
	ID            string // of the credential, in hex
	Label         string
	Host          string // where it can be used
	Created, Used time.Time
	Synced        bool // kept by the device's maker too, so that it survives the device
}

// Methods is what a person can log in with.
type Methods struct {
	Passkeys     []Passkey
	TOTP         bool
	TOTPSince    time.Time
	Printed      int // codes that are left
	PrintedSince time.Time
}

// Methods lists what a person can log in with besides her password.
func (l *Login) Methods(person string) (Methods, error) {
	f, err := l.factors(person)
	if err != nil {
		return Methods{}, fmt.Errorf("cannot list how %q logs in: %w", person, err)
	}
	m := Methods{Printed: len(f.Printed), PrintedSince: f.PrintedT}
	if f.TOTP != nil {
		m.TOTP, m.TOTPSince = true, f.TOTP.Created
	}
	for _, k := range f.Passkeys {
		m.Passkeys = append(m.Passkeys, k.shown())
	}
	return m, nil
}

func (k *passkey) shown() Passkey {
	return Passkey{k.id(), k.Label, k.RP, k.Created, k.Used, k.Credential.Flags.BackupState}
}

// RemovePasskey removes one of a person's passkeys.
func (l *Login) RemovePasskey(ctx context.Context, actor, person, id string) error {
	label := ""
	err := l.change(person, func(f *factors) error {
		for i := range f.Passkeys {
			if f.Passkeys[i].id() == id {
				label = f.Passkeys[i].Label
				f.Passkeys = append(f.Passkeys[:i], f.Passkeys[i+1:]...)
				return nil
			}
		}
		return store.ErrNotFound
	})
	if err != nil {
		return fmt.Errorf("cannot remove the passkey: %w", err)
	}
	l.tell(ctx, person, "passkey.removed", map[string]string{"label": label})
	return l.record(actor, "passkey.removed", person, map[string]string{"label": label})
}

// user is a person as package webauthn wants her.
type user struct {
	name, display string
	f             factors
	rp            string
}

func (u *user) WebAuthnID() []byte          { return bytes.Clone(u.f.Handle) }
func (u *user) WebAuthnName() string        { return u.name }
func (u *user) WebAuthnDisplayName() string { return u.display }
func (u *user) WebAuthnCredentials() (all []webauthn.Credential) {
	for _, k := range u.f.Passkeys {
		if k.RP == u.rp {
			all = append(all, k.Credential)
		}
	}
	return all
}
