package web

import (
	"html/template"
	"strconv"
	"strings"
	"time"

	"allotment/portal/sentence"
)

// Said is a text of the box, in English: as a message's value it is said in the visitor's language as far as that is known.
type Said string

// readSentences reads in which words other languages have what the box says.
func (s *Site) readSentences() error {
	tags, err := sentence.Languages(sentence.Files)
	if err != nil {
		return err
	}
	s.sentences = map[string]*sentence.Catalogue{}
	for _, tag := range tags {
		moment := func(t time.Time, clock bool) string {
			if t.Year() == 0 {
				t = nearest(t, s.deps.Clock())
			}
			if clock {
				return s.messages.Moment(tag, t)
			}
			return s.messages.Date(tag, t)
		}
		if s.sentences[tag], err = sentence.Read(sentence.Files, tag, s.messages.moduleWords(tag), moment); err != nil {
			return err
		}
	}
	return nil
}

// nearest is the moment with the year in which it is nearest to now.
func nearest(t, now time.Time) time.Time {
	best := t.AddDate(now.Year(), 0, 0)
	for _, year := range []int{now.Year() - 1, now.Year() + 1} {
		if other := t.AddDate(year, 0, 0); other.Sub(now).Abs() < best.Sub(now).Abs() {
			best = other
		}
	}
	return best
}

// wordsOf are the beginnings of the keys of the modules' own words.
var wordsOf = []string{"module.", "task.", "setting.", "permission."}

// moduleWords are the words of modules in a language by their English. A module is also known by its name, and a task by
// NAME of MODULE, as events call them.
func (m Messages) moduleWords(tag string) map[string]string {
	words := map[string]string{}
	for key, english := range m[fallback] {
		other, ok := m[tag][key]
		kind, rest, _ := strings.Cut(key, ".")
		if !ok || !hasPrefix(key, wordsOf) {
			continue
		}
		words[english] = other
		if parts := strings.Split(rest, "."); parts[len(parts)-1] == "title" {
			switch {
			case kind == "module" && len(parts) == 2:
				words[parts[0]] = other
			case kind == "task" && len(parts) == 3:
				words[parts[1]+" of "+parts[0]] = other
			}
		}
	}
	return words
}

func hasPrefix(text string, all []string) bool {
	for _, p := range all {
		if strings.HasPrefix(text, p) {
			return true
		}
	}
	return false
}

// say is what the box says, in a language.
func (s *Site) say(tag, text string) []sentence.Part {
	switch c := s.sentences[tag]; {
	case c != nil:
		return c.Say(text)
	case tag == fallback:
		return []sentence.Part{{Text: text}}
	}
	return []sentence.Part{{Text: text, English: true}}
}

// sayHTML is what the box says, with what is left in English marked for programs that read aloud.
func (s *Site) sayHTML(tag, text string) template.HTML {
	var b strings.Builder
	for _, p := range s.say(tag, text) {
		if p.English {
			b.WriteString(`<span lang="en">` + template.HTMLEscapeString(p.Text) + `</span>`)
			continue
		}
		b.WriteString(template.HTMLEscapeString(p.Text))
	}
	return template.HTML(b.String())
}

// html is a message as HTML, with what the box says in it marked.
func (s *Site) html(tag, key string, args ...any) template.HTML {
	const mark = "\ue000" // for private use, in no text of ours
	var pairs []string
	plain := append([]any(nil), args...)
	for i, a := range args {
		if said, ok := a.(Said); ok {
			place := mark + strconv.Itoa(i) + mark
			plain[i] = place
			pairs = append(pairs, place, string(s.sayHTML(tag, string(said))))
		}
	}
	text := template.HTMLEscapeString(s.messages.Text(tag, key, plain...))
	return template.HTML(strings.NewReplacer(pairs...).Replace(text))
}

// text is a message with what the box says in it.
func (s *Site) text(tag, key string, args ...any) string {
	for i, a := range args {
		if said, ok := a.(Said); ok {
			args = append(append(append([]any(nil), args[:i]...), sentence.Text(s.say(tag, string(said)))), args[i+1:]...)
		}
	}
	return s.messages.Text(tag, key, args...)
}

// Say is what the box says, in the language nearest to the wanted one (BCP 47), for mails.
func (s *Site) Say(wanted, text string) string {
	return sentence.Text(s.say(s.messages.choose(wanted), text))
}

func (r *Request) html(key string, args ...any) template.HTML {
	return r.site.html(r.Language, key, args...)
}

// Or is a message, or another text where there is none.
func (r *Request) Or(key, otherwise string) string {
	if text := r.T(key); text != key {
		return text
	}
	return otherwise
}

// ModuleTitle is a module's title in the visitor's language, or that of its declaration.
func (r *Request) ModuleTitle(name, title string) string { return r.Or("module."+name+".title", title) }
