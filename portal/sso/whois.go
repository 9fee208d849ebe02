package sso

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"allotment/portal/directory"
	"allotment/portal/session"
	"allotment/portal/store"
)

// Visitor is what whois answers.
type Visitor struct {
	Person   string   `json:"person"`
	Name     string   `json:"name"`
	Mail     string   `json:"mail"`
	Groups   []string `json:"groups"`
	Permits  []string `json:"permissions"`        // what she may do in the module
	Password string   `json:"password,omitempty"` // app password, for modules with sso "basic"
}

// ssoBasic is the kind of module that gets a password for each visitor.
const ssoBasic = "basic"

// whois tells the gateway who asks it for a module.
func (s *SSO) whois(w http.ResponseWriter, r *http.Request) {
	module := r.FormValue("module")
	found, err := s.Sessions.FindAt(r, cmp.Or(r.Header.Get("X-Forwarded-Host"), r.Host))
	if errors.Is(err, session.ErrNone) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	var v Visitor
	if err == nil {
		v, err = s.describe(r, found, module)
	}
	if m := s.module(module); err == nil && m != nil && m.SSO == ssoBasic {
		v.Password, err = s.password(r, found, module)
	}
	if err != nil {
		s.refuse(w, err)
		return
	}
	answer(w, v)
}

func (s *SSO) describe(r *http.Request, found session.Session, module string) (Visitor, error) {
	if module == "" {
		return Visitor{}, errDenied
	}
	p, err := s.visitor(r.Context(), found, module)
	if err != nil {
		return Visitor{}, err
	}
	v := Visitor{Person: p.Name, Name: p.Display, Mail: p.Mail, Groups: append([]string{}, p.Groups...), Permits: []string{}}
	for _, name := range p.Permissions {
		if permission, ok := strings.CutPrefix(name, module+"."); ok {
			v.Permits = append(v.Permits, permission)
		}
	}
	return v, nil
}

// credentials gives a web client that logs in by a protocol of its own the visitor's name and a password for it. Only
// scripts of pages at the same origin can have it.
func (s *SSO) credentials(w http.ResponseWriter, r *http.Request) {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		s.refuse(w, errDenied)
		return
	}
	module := r.FormValue("module")
	found, err := s.Sessions.Find(r)
	var v Visitor
	if err == nil {
		v, err = s.describe(r, found, module)
	}
	if err == nil {
		v.Password, err = s.password(r, found, module)
	}
	if err != nil {
		s.refuse(w, err)
		return
	}
	answer(w, v)
}

func answer(w http.ResponseWriter, v Visitor) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// secret is an app password of one browser for one module, as it is stored. Only the browser's cookie opens it.
type secret struct {
	Person string `json:"person"`
	ID     string `json:"id"` // of the app password
	Sealed []byte `json:"sealed"`
}

// secrets have the ID of the cookie's token, "/" and the module's name as their keys.
var secrets = store.NewBucket[secret]("sso-passwords")

// labelPrefix begins the labels of app passwords that this package makes.
const labelPrefix = "browser: "

// OfSession says whether an app password was made here for a session, by its label: the portal does not list those.
func OfSession(p directory.AppPassword) bool { return strings.HasPrefix(p.Label, labelPrefix) }

// password is the app password of a session's browser for a module. It is made when it is first asked for.
func (s *SSO) password(r *http.Request, found session.Session, module string) (string, error) {
	s.making.Lock()
	defer s.making.Unlock()
	key, seal := s.Sessions.TokenID(r)+"/"+module, s.Sessions.Key(r, "sso "+module)
	var kept secret
	err := s.DB.View(func(tx *store.Tx) (err error) {
		kept, err = secrets.Get(tx, key)
		return err
	})
	if err == nil {
		return open(seal, kept.Sealed)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return "", err
	}
	id, password, err := s.Directory.AddAppPassword(r.Context(), found.Person, labelPrefix+module, found.Expires)
	if err != nil {
		return "", fmt.Errorf("cannot make a password for %q: %w", module, err)
	}
	sealed, err := sealed(seal, password)
	if err == nil {
		err = s.DB.Update(func(tx *store.Tx) error {
			return secrets.Put(tx, key, secret{found.Person, id, sealed})
		})
	}
	if err != nil {
		return "", errors.Join(err, s.Directory.RemoveAppPassword(r.Context(), found.Person, id))
	}
	return password, nil
}

// sweepPasswords removes app passwords whose browsers are not logged in any more.
func (s *SSO) sweepPasswords(ctx context.Context) error {
	all := map[string]secret{}
	if err := s.DB.View(func(tx *store.Tx) error {
		return secrets.All(tx, "", func(key string, v secret) bool { all[key] = v; return true })
	}); err != nil {
		return err
	}
	var errs []error
	for key, v := range all {
		token, _, _ := strings.Cut(key, "/")
		alive, err := s.Sessions.Alive(token)
		if err != nil || alive {
			errs = append(errs, err)
			continue
		}
		err = s.Directory.RemoveAppPassword(ctx, v.Person, v.ID)
		if err == nil || errors.Is(err, directory.ErrNotFound) {
			err = s.DB.Update(func(tx *store.Tx) error { return secrets.Delete(tx, key) })
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func aead(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// sealed is a text encrypted (AES-256-GCM) behind its nonce.
func sealed(key []byte, text string) ([]byte, error) {
	a, err := aead(key)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, a.NonceSize())
	rand.Read(nonce)
	return a.Seal(nonce, nonce, []byte(text), nil), nil
}

func open(key, box []byte) (string, error) {
	a, err := aead(key)
	if err != nil || len(box) < a.NonceSize() {
		return "", errors.Join(errors.New("cannot open a sealed password"), err)
	}
	text, err := a.Open(nil, box[:a.NonceSize()], box[a.NonceSize():], nil)
	if err != nil {
		return "", fmt.Errorf("cannot open a sealed password: %w", err)
	}
	return string(text), nil
}
