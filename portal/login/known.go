package login

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"allotment/portal/store"
)

// The cookie that tells that a person has logged in with this browser before. It opens nothing: it only keeps the
// wrong tries of strangers from slowing her down.
const (
	knownCookie = "portal-known"
	knownTime   = 365 * 24 * time.Hour
)

var keys = store.NewBucket[[]byte]("login-keys")

// knownKey signs the cookies; it is made when it is first needed.
func (l *Login) knownKey() (key []byte, err error) {
	err = l.DB.View(func(tx *store.Tx) error {
		key, err = keys.Get(tx, "known")
		return err
	})
	if !errors.Is(err, store.ErrNotFound) {
		return key, err
	}
	err = l.DB.Update(func(tx *store.Tx) error {
		if key, err = keys.Get(tx, "known"); !errors.Is(err, store.ErrNotFound) {
			return err
		}
		key = make([]byte, 32)
		rand.Read(key)
		return keys.Put(tx, "known", key)
	})
	return key, err
}

func sign(key []byte, person string) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(person))
	return person + "~" + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// known says whether person has logged in with the browser of r.
func (l *Login) known(r *http.Request, person string) bool {
	c, err := r.Cookie(knownCookie)
	if err != nil || !strings.HasPrefix(c.Value, person+"~") {
		return false
	}
	key, err := l.knownKey()
	return err == nil && hmac.Equal([]byte(c.Value), []byte(sign(key, person)))
}

func (l *Login) markKnown(w http.ResponseWriter, _ *http.Request, person string) error {
	key, err := l.knownKey()
	if err != nil {
		return err
	}
	c := http.Cookie{Name: knownCookie, Value: sign(key, person), Path: "/portal/", MaxAge: int(knownTime / time.Second),
		Secure: l.Config().Secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	http.SetCookie(w, &c)
	return nil
}
