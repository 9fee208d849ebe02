package login

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"allotment/portal/store"
)

// link is what the link in a mail is for, as the database has it: the box may restart before the mail is read.
type link struct {
	Purpose string    `json:"purpose"` // path of the page that it leads to
	Person  string    `json:"person"`
	Address string    `json:"address"` // that it was sent to
	Changed time.Time `json:"changed"` // factors.Changed of then
	Until   time.Time `json:"until"`
}

// links are by the hash of their token, which is in the mail alone.
var links = store.NewBucket[link]("login-links")

func linkKey(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// newLink keeps k for linkTime, and returns its token of 130 random bits. Those that are too old are removed.
func (l *Login) newLink(k link) (token string, err error) {
	token, k.Until = rand.Text(), l.Now().Add(linkTime).UTC()
	return token, l.DB.Update(func(tx *store.Tx) error {
		late := func(k link) bool { return !l.Now().Before(k.Until) }
		return errors.Join(removeLinks(tx, late), links.Put(tx, linkKey(token), k))
	})
}

// findLink is the link with the token. ErrTicket: it is for something else, used up, too old or was never there.
func (l *Login) findLink(token, purpose string) (k link, err error) {
	err = l.DB.View(func(tx *store.Tx) error {
		k, err = links.Get(tx, linkKey(token))
		return err
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && (k.Purpose != purpose || !l.Now().Before(k.Until)) {
		return link{}, ErrTicket
	}
	return k, err
}

func (l *Login) useUp(token string) error {
	return l.DB.Update(func(tx *store.Tx) error { return links.Delete(tx, linkKey(token)) })
}

func removeLinks(tx *store.Tx, over func(link) bool) error {
	var failure error
	err := links.All(tx, "", func(key string, k link) bool {
		if over(k) {
			failure = links.Delete(tx, key)
		}
		return failure == nil
	})
	return errors.Join(err, failure)
}
