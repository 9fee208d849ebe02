package mail

import (
	"embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/text/language"
)

// Messages are the words of this package in every language, in messages/LANGUAGE.toml.
//
//go:embed messages/*.toml
var Messages embed.FS

// Texts are the texts of mails in every language. A mail NAME has the messages mail.NAME.subject and mail.NAME.text, with
// {value} where the value of that name goes.
type Texts struct {
	words   map[string]map[string]string
	known   []string // English first
	matcher language.Matcher
}

// NewTexts are texts by language (BCP 47) and key, as web.ReadMessages reads them.
func NewTexts(words map[string]map[string]string) *Texts {
	t := &Texts{words: words, known: []string{"en"}}
	for _, code := range slices.Sorted(maps.Keys(words)) {
		if code != "en" {
			t.known = append(t.known, code)
		}
	}
	var tags []language.Tag
	for _, code := range t.known {
		tags = append(tags, language.Make(code))
	}
	t.matcher = language.NewMatcher(tags)
	return t
}

// gaps are what a value leaves that is empty.
var gaps = regexp.MustCompile(`\n\n\n+`)

// Write makes the mail called name to an address, in the language nearest to the wanted one.
func (t *Texts) Write(to, wanted, name string, values map[string]string) (Message, error) {
	_, index := language.MatchStrings(t.matcher, wanted)
	m := Message{To: to, Language: t.known[index]}
	words := t.words[m.Language]
	subject, hasSubject := words["mail."+name+".subject"]
	text, hasText := words["mail."+name+".text"]
	if !hasSubject || !hasText {
		return m, fmt.Errorf("cannot find mail %q in language %q", name, m.Language)
	}
	var inText, inSubject []string
	for key, value := range values {
		value = strings.ReplaceAll(strings.ReplaceAll(value, "\r\n", "\n"), "\r", "\n") // as forms send it
		inText = append(inText, "{"+key+"}", value)
		inSubject = append(inSubject, "{"+key+"}", strings.Join(strings.Split(value, "\n"), " "))
	}
	m.Text = gaps.ReplaceAllString(strings.NewReplacer(inText...).Replace(text), "\n\n")
	m.Subject = shorten(strings.NewReplacer(inSubject...).Replace(subject))
	return m, nil
}

// shorten keeps names that are very long from making a subject too long.
func shorten(s string) string {
	const end = "…"
	if len(s) <= maxSubject {
		return s
	}
	cut := 0
	for i := range s {
		if i <= maxSubject-len(end) {
			cut = i
		}
	}
	return s[:cut] + end
}
