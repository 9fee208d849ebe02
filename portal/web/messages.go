package web

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/text/language"
)

// Messages are the words of the pages in all languages: by language (BCP 47), then by key.
type Messages map[string]map[string]string

// fallback is the language of messages that a language lacks.
const fallback = "en"

// ReadMessages reads messages/LANGUAGE.toml of several file systems: keys with texts, of which parts in braces such as
// {name} stand for what is filled in. Tables are parts of the key before a dot. A key with the endings .one and .other
// has two forms, told apart by {n}.
func ReadMessages(files ...fs.FS) (Messages, error) {
	m := Messages{}
	for _, f := range files {
		names, err := fs.Glob(f, "messages/*.toml")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if err := m.read(f, name); err != nil {
				return nil, fmt.Errorf("cannot read messages %q: %w", name, err)
			}
		}
	}
	return m, nil
}

func (m Messages) read(f fs.FS, name string) error {
	b, err := fs.ReadFile(f, name)
	if err != nil {
		return err
	}
	var tree map[string]any
	if err := toml.Unmarshal(b, &tree); err != nil {
		return err
	}
	tag := strings.TrimSuffix(path.Base(name), ".toml")
	if _, err := language.Parse(tag); err != nil {
		return err
	}
	if m[tag] == nil {
		m[tag] = map[string]string{}
	}
	return m.add(m[tag], "", tree)
}

func (m Messages) add(to map[string]string, prefix string, tree map[string]any) error {
	for key, v := range tree {
		key = prefix + key
		switch v := v.(type) {
		case string:
			if _, ok := to[key]; ok {
				return fmt.Errorf("key %q is there twice", key)
			}
			to[key] = v
		case map[string]any:
			if err := m.add(to, key+".", v); err != nil {
				return err
			}
		default:
			return fmt.Errorf("key %q has no text", key)
		}
	}
	return nil
}

// Languages lists the languages, the fallback first.
func (m Messages) Languages() []string {
	tags := slices.Sorted(maps.Keys(m))
	slices.SortStableFunc(tags, func(a, b string) int {
		switch {
		case a == b:
			return 0
		case a == fallback:
			return -1
		case b == fallback:
			return 1
		}
		return strings.Compare(a, b)
	})
	return tags
}

// Text is a message in a language with names and values filled in, such as "name", "Ann". A key that is nowhere is its own
// text, so that nobody is kept from his work by it.
func (m Messages) Text(tag, key string, args ...any) string {
	s, ok := m.find(tag, key, args)
	if !ok {
		return key
	}
	if len(args) < 2 {
		return s
	}
	var pairs []string
	for i := 0; i+1 < len(args); i += 2 {
		pairs = append(pairs, "{"+fmt.Sprint(args[i])+"}", fmt.Sprint(args[i+1]))
	}
	return strings.NewReplacer(pairs...).Replace(s)
}

// Has tells whether there is a message.
func (m Messages) Has(key string) bool {
	_, ok := m.find(fallback, key, nil)
	return ok
}

func (m Messages) find(tag, key string, args []any) (string, bool) {
	form := ".other"
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "n" && fmt.Sprint(args[i+1]) == "1" {
			form = ".one"
		}
	}
	for _, t := range []string{tag, fallback} {
		for _, k := range []string{key, key + form} {
			if s, ok := m[t][k]; ok {
				return s, true
			}
		}
	}
	return "", false
}

var placeholder = regexp.MustCompile(`\{[a-z]+\}`)

// Complete tells what a language lacks that another has: keys, and parts in braces.
func (m Messages) Complete() error {
	keys := map[string]string{} // key to a language that has it
	for tag, texts := range m {
		for key := range texts {
			keys[key] = tag
		}
	}
	var errs []error
	for _, tag := range m.Languages() {
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			text, ok := m[tag][key]
			if !ok {
				errs = append(errs, fmt.Errorf("language %q lacks %q, which %q has", tag, key, keys[key]))
				continue
			}
			if want, got := parts(m[keys[key]][key]), parts(text); !slices.Equal(want, got) {
				errs = append(errs, fmt.Errorf("%q has parts %v in language %q and %v in %q", key, got, tag, want, keys[key]))
			}
		}
	}
	return errors.Join(errs...)
}

func parts(text string) []string {
	found := placeholder.FindAllString(text, -1)
	slices.Sort(found)
	return slices.Compact(found)
}

// choose is the language for a visitor: her own choice, what her browser asks for, or the fallback.
func (m Messages) choose(wanted ...string) string {
	tags := m.Languages()
	var known []language.Tag
	for _, t := range tags {
		known = append(known, language.Make(t))
	}
	matcher := language.NewMatcher(known)
	for _, w := range wanted {
		asked, _, err := language.ParseAcceptLanguage(w)
		if err != nil || len(asked) == 0 {
			continue
		}
		if _, i, confidence := matcher.Match(asked...); confidence >= language.Low {
			return tags[i]
		}
	}
	return fallback
}

// languageCookie keeps the choice of somebody who has not logged in.
const languageCookie = "language"

// chosen is the language that a visitor chose on an earlier page.
func chosen(r *http.Request) string {
	c, err := r.Cookie(languageCookie)
	if err != nil {
		return ""
	}
	return c.Value
}

// Date is a day in words.
func (m Messages) Date(tag string, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	months := strings.Fields(m.Text(tag, "date.months"))
	if len(months) != 12 {
		return t.Format(time.DateOnly)
	}
	return m.Text(tag, "date.form", "day", t.Day(), "month", months[t.Month()-1], "year", t.Year())
}

// Moment is a day in words with the time of day.
func (m Messages) Moment(tag string, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return m.Text(tag, "date.moment", "date", m.Date(tag, t), "time", t.Format("15:04"))
}
