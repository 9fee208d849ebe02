package login

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"allotment/portal/session"
)

const (
	printedCodes = 10
	officerTime  = time.Hour // how long an officer's code is good
	totpStep     = 30        // seconds
	totpSkew     = 1         // steps that a telephone's clock may be wrong by
)

// totpKey is what a person's authenticator app knows.
type totpKey struct {
	Secret  string    `json:"secret"` // base 32
	Last    int64     `json:"last"`   // the latest step whose code was used: none up to it counts any more
	Created time.Time `json:"created"`
}

// officerCode lets a person in who has lost everything.
type officerCode struct {
	Hash    string    `json:"hash"`
	By      string    `json:"by"`
	Expires time.Time `json:"expires"`
}

// newTOTP is a key that its owner has not yet shown to have.
type newTOTP struct {
	person, secret string
}

// BeginTOTP makes a key for a person's authenticator app: uri is for a QR code, secret for typing. It counts once
// ConfirmTOTP got a code of it.
func (l *Login) BeginTOTP(person string) (uri, secret, ticket string, err error) {
	issuer := l.Config().Domain
	key, err := totp.Generate(totp.GenerateOpts{Issuer: issuer, AccountName: person, Period: totpStep, SecretSize: 20})
	if err != nil {
		return "", "", "", fmt.Errorf("cannot make a key for codes: %w", err)
	}
	return key.URL(), key.Secret(), l.secrets.Put(newTOTP{person, key.Secret()}), nil
}

// ConfirmTOTP turns codes on for a person, who must have the key that BeginTOTP made. It can be tried again.
func (l *Login) ConfirmTOTP(ctx context.Context, person, ticket, code string) error {
	n, ok := l.secrets.Get(ticket)
	if !ok || n.person != person {
		return ErrTicket
	}
	step, err := totpStepOf(n.secret, code, l.Now(), 0)
	if err != nil {
		return err
	}
	l.secrets.Take(ticket)
	if err := l.change(person, func(f *factors) error {
		f.TOTP = &totpKey{n.secret, step, l.Now().UTC()}
		return nil
	}); err != nil {
		return fmt.Errorf("cannot turn codes on: %w", err)
	}
	l.tell(ctx, person, "totp.on", nil)
	return l.record(person, "totp.on", person, nil)
}

// RemoveTOTP turns codes off for a person.
func (l *Login) RemoveTOTP(ctx context.Context, actor, person string) error {
	if err := l.change(person, func(f *factors) error { f.TOTP = nil; return nil }); err != nil {
		return fmt.Errorf("cannot turn codes off: %w", err)
	}
	l.tell(ctx, person, "totp.off", nil)
	return l.record(actor, "totp.off", person, nil)
}

// totpStepOf is the step (RFC 6238 section 4.2) after last that code is of; ErrRefused: of none about now.
func totpStepOf(secret, code string, now time.Time, last int64) (int64, error) {
	code = strings.ReplaceAll(code, " ", "")
	at := now.Unix() / totpStep
	found, err := int64(0), ErrRefused
	for step := at - totpSkew; step <= at+totpSkew; step++ {
		want, codeErr := hotp.GenerateCodeCustom(secret, uint64(step),
			hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
		if codeErr != nil {
			return 0, codeErr
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 && step > last {
			found, err = step, nil
		}
	}
	return found, err
}

// MakePrinted makes new codes for a person to print and keep; former ones end.
func (l *Login) MakePrinted(ctx context.Context, person string) ([]string, error) {
	var codes, hashes []string
	for range printedCodes {
		c := newCode()
		codes, hashes = append(codes, c), append(hashes, hashCode(c))
	}
	if err := l.change(person, func(f *factors) error {
		f.Printed, f.PrintedT = hashes, l.Now().UTC()
		return nil
	}); err != nil {
		return nil, fmt.Errorf("cannot make codes: %w", err)
	}
	l.tell(ctx, person, "printed.made", nil)
	return codes, l.record(person, "printed.made", person, nil)
}

// MakeOfficerCode makes a code with which a person can log in within an hour, for an officer to tell her face to
// face. He cannot make one for himself. The person is mailed, and the audit log names both.
func (l *Login) MakeOfficerCode(ctx context.Context, officer, person string) (code string, until time.Time, err error) {
	holds, err := l.Directory.HoldsOffice(ctx, officer, l.Now())
	if err != nil {
		return "", until, fmt.Errorf("cannot make a code for %q: %w", person, err)
	}
	if !holds || officer == person {
		return "", until, ErrOfficer
	}
	p, err := l.Directory.Person(ctx, person)
	if err != nil {
		return "", until, fmt.Errorf("cannot make a code for %q: %w", person, err)
	}
	code, until = newCode(), l.Now().UTC().Add(officerTime)
	if err := l.change(p.Name, func(f *factors) error {
		f.Officer = &officerCode{hashCode(code), officer, until}
		return nil
	}); err != nil {
		return "", until, fmt.Errorf("cannot make a code for %q: %w", person, err)
	}
	l.tell(ctx, p.Name, "recovery.code", map[string]string{"officer": officer})
	return code, until, l.record(officer, "recovery.code", p.Name, nil)
}

// useCode takes a code of one of the strengths, which is worth nothing afterwards. ErrRefused: it is none.
func (l *Login) useCode(person, code string, strengths ...string) (strength string, err error) {
	err = l.change(person, func(f *factors) error {
		for _, s := range strengths {
			if strength = s; f.use(s, code, l.Now()) {
				return nil
			}
		}
		return ErrRefused
	})
	if err != nil && !errors.Is(err, ErrRefused) {
		return "", fmt.Errorf("cannot check a code: %w", err)
	}
	return strength, err
}

// use takes a code of a strength, if it is one.
func (f *factors) use(strength, code string, now time.Time) bool {
	switch strength {
	case session.TOTP:
		if f.TOTP == nil {
			return false
		}
		step, err := totpStepOf(f.TOTP.Secret, code, now, f.TOTP.Last)
		if err == nil {
			f.TOTP.Last = step
		}
		return err == nil
	case session.Printed:
		i := slices.Index(f.Printed, hashCode(code))
		if i >= 0 {
			f.Printed = slices.Delete(f.Printed, i, i+1)
		}
		return i >= 0
	case session.Officer:
		good := f.Officer != nil && f.Officer.Hash == hashCode(code) && now.Before(f.Officer.Expires)
		if good {
			f.Officer = nil
		}
		return good
	}
	return false
}

// alphabet is Crockford's base 32: no i, l, o or u, which eyes take for something else.
const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// newCode is a code of 80 bits for paper, in four groups.
func newCode() string {
	raw := make([]byte, 16)
	rand.Read(raw)
	var b strings.Builder
	for i, c := range raw {
		if i > 0 && i%4 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(alphabet[c&31])
	}
	return b.String()
}

// hashCode is a code's hash, however it was typed. A code is random, so that a quick hash is safe.
func hashCode(code string) string {
	code = strings.NewReplacer("-", "", " ", "", "o", "0", "i", "1", "l", "1").Replace(strings.ToLower(code))
	sum := sha256.Sum256([]byte(code))
	return hex.EncodeToString(sum[:])
}
