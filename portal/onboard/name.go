package onboard

import (
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// spelled is how letters are written in ASCII that are no letter with a mark.
var spelled = strings.NewReplacer("ä", "ae", "ö", "oe", "ü", "ue", "ß", "ss", "æ", "ae", "ø", "o", "œ", "oe", "ł", "l", "đ", "d",
	"ð", "d", "þ", "th", "ı", "i", "å", "aa")

// ascii is a text in small ASCII letters and digits; what has no such form falls away.
func ascii(s string) string {
	s = spelled.Replace(norm.NFC.String(strings.ToLower(s)))
	var b strings.Builder
	for _, r := range norm.NFKD.String(s) {
		if r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			b.WriteRune(r)
		}
	}
	return b.String()
}

const longestName = 40 // of the 63 that the directory takes

// loginName is the nth choice of a name to log in with, from 1: given.family, given.family2, ... Where the names have
// no Latin letters, the address's part before the @ serves, or "member".
func loginName(given, family, mail string, n int) string {
	name := strings.Trim(ascii(given)+"."+ascii(family), ".")
	if len(name) < 2 {
		local, _, _ := strings.Cut(mail, "@")
		name = ascii(local)
	}
	name = strings.TrimLeft(name, "0123456789.")
	if name == "" || strings.HasPrefix(name, "probe") {
		name = "member" + name
	}
	if len(name) > longestName {
		name = strings.TrimRight(name[:longestName], ".")
	}
	if n > 1 {
		name += fmt.Sprint(n)
	}
	return name
}
