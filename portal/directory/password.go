package directory

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// SetPassword gives a person a new password, which the directory keeps as an argon2id hash. App passwords stay.
func (d *Directory) SetPassword(ctx context.Context, person, password string) error {
	if err := d.setPassword(ctx, person, password); err != nil {
		return fmt.Errorf("cannot set the password of %q: %w", person, err)
	}
	return nil
}

func (d *Directory) setPassword(ctx context.Context, person, password string) error {
	dn, err := personDN(person)
	if err != nil {
		return err
	}
	if password == "" || IsAppPassword(password) || strings.HasPrefix(password, "{") { // which slapd takes for a hash
		return ErrWeak
	}
	// The directory tells nobody which value is the old one, so all are replaced, and those of apps come back afterwards:
	// a cut between leaves devices without access, never an old password with it.
	d.passwords.Lock()
	defer d.passwords.Unlock()
	if err := d.replace(ctx, dn, one("userPassword", password)); err != nil {
		return err
	}
	kept, err := d.appPasswords(ctx, dn)
	if err != nil {
		return err
	}
	for _, p := range kept {
		r := ldap.NewModifyRequest(dn, nil)
		r.Add("userPassword", []string{p.hash})
		if err := d.modify(ctx, r); err != nil && !errors.Is(err, ErrExists) {
			return err
		}
	}
	return nil
}

// AppPassword is a password for one device or program that logs in by a protocol without our login page.
type AppPassword struct {
	ID      string
	Label   string // such as "Anna's iPad"
	Created time.Time
	Expires time.Time // zero: never

	hash   string // {SSHA}
	record string // the value that says all this
}

// appForm is how app passwords look: 100 random bits in Crockford's base 32.
var appForm = regexp.MustCompile(`^app(-[` + crockford + `]{4}){5}$`)

const crockford = "0123456789abcdefghjkmnpqrstvwxyz"

// IsAppPassword says whether a password has the form of those for apps. Nobody can log in to the portal by one.
func IsAppPassword(password string) bool { return appForm.MatchString(password) }

// randomCode returns n random characters of the alphabet, of 5 bits each.
func randomCode(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	for i := range b {
		b[i] = crockford[b[i]&31]
	}
	return string(b)
}

// ssha is the salted hash that slapd compares with (RFC 2307 section 5.3). It is quick, which 100 random bits can afford.
func ssha(secret string) string {
	salt := make([]byte, 8)
	rand.Read(salt)
	sum := sha1.Sum(append([]byte(secret), salt...))
	return "{SSHA}" + base64.StdEncoding.EncodeToString(append(sum[:], salt...))
}

// AddAppPassword gives a person one more password, until it expires; never with the zero time. The secret is told this once.
func (d *Directory) AddAppPassword(ctx context.Context, person, label string, expires time.Time) (id, secret string, err error) {
	p := AppPassword{ID: randomCode(12), Created: time.Now(), Expires: expires}
	code := randomCode(20)
	secret = "app-" + code[:4] + "-" + code[4:8] + "-" + code[8:12] + "-" + code[12:16] + "-" + code[16:]
	p.hash = ssha(secret)
	dn, err := personDN(person)
	if err == nil {
		p.Label, err = CleanText(label)
	}
	if err == nil {
		r := ldap.NewModifyRequest(dn, nil)
		r.Add("userPassword", []string{p.hash})
		r.Add("allotmentAppPassword", []string{p.String()})
		err = d.modify(ctx, r)
	}
	if err != nil {
		return "", "", fmt.Errorf("cannot give %q a password for apps: %w", person, err)
	}
	return p.ID, secret, nil
}

// String is the record in the directory: ID, moments of creation and expiry ("-" for never), hash and label. The hash is in
// it so that exactly this value of userPassword, which nobody can read, can be removed.
func (p AppPassword) String() string {
	expires := "-"
	if !p.Expires.IsZero() {
		expires = p.Expires.UTC().Format(timeForm)
	}
	return strings.Join([]string{p.ID, p.Created.UTC().Format(timeForm), expires, p.hash, p.Label}, " ")
}

func parseAppPassword(record string) (AppPassword, error) {
	f := strings.SplitN(record, " ", 5)
	if len(f) != 5 {
		return AppPassword{}, errors.New("cannot read what the directory says of a password for apps")
	}
	p := AppPassword{ID: f[0], hash: f[3], Label: f[4], record: record}
	var err error
	if p.Created, err = time.Parse(timeForm, f[1]); err == nil && f[2] != "-" {
		p.Expires, err = time.Parse(timeForm, f[2])
	}
	if err != nil {
		return AppPassword{}, fmt.Errorf("cannot read what the directory says of password %q for apps: %w", p.ID, err)
	}
	return p, nil
}

// AppPasswords lists a person's passwords for apps.
func (d *Directory) AppPasswords(ctx context.Context, person string) ([]AppPassword, error) {
	dn, err := personDN(person)
	if err == nil {
		var found []AppPassword
		if found, err = d.appPasswords(ctx, dn); err == nil {
			return found, nil
		}
	}
	return nil, fmt.Errorf("cannot list the passwords for apps of %q: %w", person, err)
}

func (d *Directory) appPasswords(ctx context.Context, dn string) ([]AppPassword, error) {
	e, err := d.read(ctx, dn, []string{"allotmentAppPassword"})
	if err != nil {
		return nil, err
	}
	var found []AppPassword
	for _, record := range e.GetAttributeValues("allotmentAppPassword") {
		p, err := parseAppPassword(record)
		if err != nil {
			return nil, err
		}
		found = append(found, p)
	}
	return found, nil
}

// RemoveAppPassword takes a password for apps from a person. ErrNotFound: she has none of this ID.
func (d *Directory) RemoveAppPassword(ctx context.Context, person, id string) error {
	dn, err := personDN(person)
	if err == nil {
		err = d.removeAppPasswords(ctx, dn, func(p AppPassword) bool { return p.ID == id })
	}
	if err != nil {
		return fmt.Errorf("cannot remove password %q for apps of %q: %w", id, person, err)
	}
	return nil
}

// removeAppPasswords removes those of one person that are chosen. ErrNotFound: there are none.
func (d *Directory) removeAppPasswords(ctx context.Context, dn string, chosen func(AppPassword) bool) error {
	d.passwords.Lock()
	defer d.passwords.Unlock()
	all, err := d.appPasswords(ctx, dn)
	if err != nil {
		return err
	}
	found := false
	for _, p := range all {
		if !chosen(p) {
			continue
		}
		found = true
		err := d.removeRecord(ctx, dn, p, true)
		if errors.Is(err, ErrNotFound) { // a cut in setPassword has lost the value
			err = d.removeRecord(ctx, dn, p, false)
		}
		if err != nil {
			return err
		}
	}
	if !found {
		return ErrNotFound
	}
	return nil
}

func (d *Directory) removeRecord(ctx context.Context, dn string, p AppPassword, withValue bool) error {
	r := ldap.NewModifyRequest(dn, nil)
	r.Delete("allotmentAppPassword", []string{p.record})
	if withValue {
		r.Delete("userPassword", []string{p.hash})
	}
	return d.modify(ctx, r)
}

func (d *Directory) purgeAppPasswords(ctx context.Context, now time.Time) error {
	entries, err := d.search(ctx, people, "(allotmentAppPassword=*)", []string{"uid"})
	if err != nil {
		return fmt.Errorf("cannot find expired passwords for apps: %w", err)
	}
	expired := func(p AppPassword) bool { return !p.Expires.IsZero() && !p.Expires.After(now) }
	for _, e := range entries {
		if err := d.removeAppPasswords(ctx, e.DN, expired); err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("cannot remove expired passwords for apps of %q: %w", nameOf(e.DN), err)
		}
	}
	return nil
}
