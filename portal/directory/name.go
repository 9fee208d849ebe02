package directory

import (
	"fmt"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"
	"golang.org/x/text/unicode/norm"
)

// The tree's fixed places.
const (
	suffix      = "o=organisation"
	people      = "ou=people," + suffix
	groups      = "ou=groups," + suffix
	collectives = "ou=collectives," + suffix
	offices     = "ou=offices," + suffix
	permissions = "ou=permissions," + suffix
	portal      = "cn=portal,ou=services," + suffix
)

// nameForm is what people, groups, collectives and offices can be called. It is also the part of their mail addresses
// before the @, and needs no escapes anywhere.
var nameForm = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,62}$`)

// probePrefix begins the names of accounts that journeys use; no person has such a name.
const probePrefix = "probe-"

// nameDN is the distinguished name of what is called name in the folder base.
func nameDN(attribute, name, base string) (string, error) {
	if !nameForm.MatchString(name) {
		return "", fmt.Errorf("%q is %w", name, ErrName)
	}
	return attribute + "=" + ldap.EscapeDN(name) + "," + base, nil
}

func personDN(name string) (string, error) {
	if strings.HasPrefix(name, probePrefix) {
		return "", fmt.Errorf("%q is %w: names that begin with %q are kept for probes", name, ErrName, probePrefix)
	}
	return nameDN("uid", name, people)
}

func groupDN(name string) (string, error)      { return nameDN("cn", name, groups) }
func collectiveDN(name string) (string, error) { return nameDN("ou", name, collectives) }
func officeDN(name string) (string, error)     { return nameDN("cn", name, offices) }

// dns are the distinguished names of several things of one kind.
func dns(names []string, dn func(string) (string, error)) ([]string, error) {
	var all []string
	for _, name := range names {
		one, err := dn(name)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// nameOf is the name in the first part of a distinguished name that has one of the forms above, or "".
func nameOf(dn string) string {
	first, _, _ := strings.Cut(dn, ",")
	_, name, _ := strings.Cut(first, "=")
	return name
}

// namesBelow are the sorted names of those distinguished names that lie right below base.
func namesBelow(base string, dns []string) []string {
	var names []string
	for _, dn := range dns {
		if first, rest, _ := strings.Cut(dn, ","); strings.EqualFold(rest, base) {
			names = append(names, nameOf(first))
		}
	}
	slices.Sort(names)
	return names
}

// CleanText returns a text for people, such as a name, without space around it and in normalization form C (UAX 15). It
// refuses control characters, and those that turn the direction of what follows: with them one name looks like another.
func CleanText(s string) (string, error) {
	s = norm.NFC.String(strings.TrimSpace(s))
	if !utf8.ValidString(s) || utf8.RuneCountInString(s) > 200 || strings.ContainsFunc(s, unfit) {
		return "", fmt.Errorf("%q is %w", s, ErrText)
	}
	return s, nil
}

// unfit tells control characters, line and paragraph separators, private use and the directional formatting characters
// (UAX 9). The zero-width joiners are fit: emoji and several scripts need them.
func unfit(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == '\ufeff' || unicode.Is(unicode.Co, r) ||
		unicode.Is(unicode.Bidi_Control, r)
}

// CleanMail returns a mail address with its domain in lower case; "" stays. It takes ASCII alone, since the directory's
// attributes and many servers do.
func CleanMail(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return "", nil
	}
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || len(s) > 254 || strings.ContainsFunc(s, notGraphicASCII) {
		return "", fmt.Errorf("%q is %w", s, ErrMail)
	}
	local, domain, _ := strings.Cut(s, "@")
	if !domainForm.MatchString(domain) { // quoted local parts with @ end here too
		return "", fmt.Errorf("%q is %w", s, ErrMail)
	}
	return local + "@" + strings.ToLower(domain), nil
}

var domainForm = regexp.MustCompile(`(?i)^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$`)

func notGraphicASCII(r rune) bool { return r <= ' ' || r > '~' }
