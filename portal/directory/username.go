package directory

import (
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// folded are Latin letters that are no letter with a mark, as people write them where they cannot be typed.
var folded = strings.NewReplacer("ä", "ae", "ö", "oe", "ü", "ue", "ß", "ss", "æ", "ae", "ø", "oe", "å", "aa", "œ", "oe", "đ", "d",
	"ð", "d", "þ", "th", "ł", "l", "ı", "i", "ħ", "h", "ŋ", "ng")

// ProposeName is a user name for a person, which is not taken: "anna.archer", "anna.archer2"; "user1" for names in scripts
// other than Latin.
func ProposeName(given, family string, taken func(name string) bool) string {
	stem := strings.Trim(latin(given)+"."+latin(family), ".")
	if len(stem) > 50 {
		stem = strings.Trim(stem[:50], ".")
	}
	number := 1
	if !nameForm.MatchString(stem) || strings.HasPrefix(stem, probePrefix) || latin(given) == "" && latin(family) == "" {
		stem = "user"
	} else if !taken(stem) {
		return stem
	} else {
		number = 2
	}
	for ; ; number++ {
		if name := stem + strconv.Itoa(number); !taken(name) {
			return name
		}
	}
}

// latin is a name in the letters a to z; "" if it has others that do not become such.
func latin(name string) string {
	var b strings.Builder
	for _, r := range norm.NFD.String(folded.Replace(norm.NFC.String(strings.ToLower(name)))) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		case unicode.IsLetter(r):
			return ""
		case r == '-' || unicode.IsSpace(r):
			b.WriteByte('-')
		}
	}
	return strings.Trim(b.String(), "-")
}
