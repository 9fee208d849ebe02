package login

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"allotment/portal/directory"
)

// What can be wrong with a new password.
var (
	ErrShort  = errors.New("the password has fewer than 10 characters")
	ErrLong   = errors.New("the password is longer than 512 bytes")
	ErrCommon = errors.New("the password is one of those that everybody tries first")
	ErrOwn    = errors.New("the password is the person's own name or address")
)

const (
	minPassword = 10  // characters
	maxPassword = 512 // bytes
)

// Normal is the form of a password that is hashed: one and the same letter can be typed as different characters (RFC
// 8265 section 4.2.2).
func Normal(password string) string { return norm.NFC.String(password) }

// CheckPassword says what is wrong with a new password of a person. There are no rules about which characters it has.
func CheckPassword(p directory.Person, password string) error {
	password = Normal(password)
	switch {
	case utf8.RuneCountInString(password) < minPassword:
		return ErrShort
	case len(password) > maxPassword:
		return ErrLong
	case directory.IsAppPassword(password): // could never be used to log in
		return ErrCommon
	}
	core := squeeze(password)
	for _, own := range []string{p.Name, p.Given + p.Family, p.Family + p.Given, p.Display, p.Mail, p.OutsideMail} {
		if own = squeeze(own); own != "" && core == own {
			return ErrOwn
		}
	}
	if isCommon(core) {
		return ErrCommon
	}
	return nil
}

// squeeze is what of a password is worth something: in lower case, without digits and signs at both ends.
func squeeze(s string) string {
	return strings.Trim(strings.ToLower(s), "0123456789 !?.,;:-_+*#$%&/()=@")
}

// commonWords are what the commonest passwords of ten or more characters are made of. Long lists have words that
// are too short for us.
const commonWords = `password passwort passw0rd kennwort qwerty qwertz qwertyuiop qwertzuiop asdfghjkl zxcvbnm yxcvbnm
iloveyou ichliebedich sunshine princess football baseball basketball welcome willkommen monkey dragon master superman
batman trustno starwars computer internet michael jennifer jessica liverpool chelsea arsenal pokemon
letmein changeme administrator admin geheim geheimnis hallo schatz sommer winter fruehling herbst summer spring autumn
allotment garden garten verein club abcdefghij abcdefghijkl abc test testing secret default unknown whatever
q1w2e3r4t5 1q2w3e4r 1qaz2wsx qazwsx zaq1zaq1 1q2w3e4r5t q1w2e3r4`

// isCommon says whether a squeezed password is a common word, once or several times over, or too few characters.
func isCommon(core string) bool {
	different := map[rune]bool{}
	for _, r := range core {
		different[r] = true
	}
	if len(different) < 3 { // digits alone, or one letter again and again
		return true
	}
	for word := range strings.FieldsSeq(commonWords) {
		if strings.ReplaceAll(core, squeeze(word), "") == "" || core == word {
			return true
		}
	}
	return false
}

// ChangePassword gives a person a new password, which she (or an officer) has chosen, and ends her other sessions:
// all but the one with ID keep.
func (l *Login) ChangePassword(ctx context.Context, actor, name, password, keep string) error {
	p, err := l.Directory.Person(ctx, name)
	if err != nil {
		return fmt.Errorf("cannot change the password: %w", err)
	}
	if err := CheckPassword(p, password); err != nil {
		return err
	}
	if err := l.setPassword(ctx, name, password); err != nil {
		return err
	}
	l.tell(ctx, name, "password.changed", nil)
	return errors.Join(l.record(actor, "password.changed", name, nil), l.Sessions.EndOthers(name, keep))
}

// checkNobody does the work of checking a password, as the directory does it (argon2id, 7 MiB, 5 passes), and refuses.
func (l *Login) checkNobody(ctx context.Context) error {
	if err := l.enterChecks(ctx); err != nil {
		return err
	}
	defer l.leaveChecks()
	argon2.IDKey([]byte("nobody"), []byte("no salt at all"), 5, 7<<10, 1, 32)
	return ErrRefused
}
