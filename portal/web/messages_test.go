package web

import (
	"html/template"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func fileSystem(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func TestMessages(t *testing.T) {
	m, err := ReadMessages(fileSystem(map[string]string{
		"messages/en.toml": "[bees]\nhello = \"Hello {name}\"\n\"hives.one\" = \"One hive\"\n\"hives.other\" = \"{n} hives\"\nonly = \"Only here\"\n",
		"messages/de.toml": "bees.hello = \"Hallo {name}\"\n[\"bees.hives\"]\none = \"Ein Stock\"\nother = \"{n} Stöcke\"\n",
	}), own)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tag, key string
		args     []any
		want     string
	}{
		{"de", "bees.hello", []any{"name", "{n}<b>"}, "Hallo {n}<b>"},
		{"en", "bees.hives", []any{"n", 1}, "One hive"},
		{"de", "bees.hives", []any{"n", 3}, "3 Stöcke"},
		{"de", "bees.only", nil, "Only here"},
		{"de", "bees.nowhere", nil, "bees.nowhere"},
		{"xx", "bees.only", nil, "Only here"},
	} {
		if got := m.Text(c.tag, c.key, c.args...); got != c.want {
			t.Errorf("%s in %s: %q, not %q", c.key, c.tag, got, c.want)
		}
	}
	day := time.Date(2026, 3, 1, 9, 5, 0, 0, time.UTC)
	if got := m.Moment("de", day); got != "1. März 2026, 09:05 Uhr" {
		t.Error(got)
	}
	for _, c := range [][2]string{{"de-AT,en;q=0.5", "de"}, {"fr, en-GB;q=0.8", "en"}, {"ja", "en"}, {"", "en"}, {";;;", "en"}} {
		if got := m.choose(c[0]); got != c[1] {
			t.Errorf("for %q: %s, not %s", c[0], got, c[1])
		}
	}
	if err := m.Complete(); err == nil || !strings.Contains(err.Error(), `language "de" lacks "bees.only"`) {
		t.Errorf("the twin: %v", err)
	}
}

func TestMessagesTwin(t *testing.T) {
	for text, want := range map[string]string{
		"a = \"x\"\n[\"b\"]\nc = 3\n":               "has no text",
		"\"a.b\" = \"x\"\n[a]\nb = \"y\"\n":         "is there twice",
		"a = ":                                      "messages/en.toml",
		"a = \"x {name}\"\nb = \"only {number}\"\n": "",
	} {
		m, err := ReadMessages(fileSystem(map[string]string{"messages/en.toml": text, "messages/de.toml": "a = \"x {nom}\"\nb = \"{number}\"\n"}))
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", text, err)
		}
		if want == "" && (err != nil || m.Complete() == nil) {
			t.Errorf("other parts in braces: %v, %v", err, m.Complete())
		}
	}
	if _, err := ReadMessages(fileSystem(map[string]string{"messages/not a language.toml": ""})); err == nil {
		t.Error("it takes a file of no language")
	}
}

func newForm(fields url.Values) *Form {
	return &Form{values: fields, text: func(key string, _ ...any) template.HTML { return template.HTML(key) }}
}

func TestForm(t *testing.T) {
	good := newForm(url.Values{"text": {"  Zoe\u0308 \U0001f41d "}, "area": {"one\r\ntwo\n"}, "mail": {"a@B.example"}, "n": {" 7 "}, "day": {"2026-02-28"},
		"phone": {"+44 (0)20 7946"}, "box": {"yes"}})
	if got := good.Text("text", Line); got != "Zo\u00eb \U0001f41d" {
		t.Errorf("text %q", got)
	}
	if got := good.Text("area", Area); got != "one\ntwo" {
		t.Errorf("area %q", got)
	}
	if good.Mail("mail") != "a@b.example" || good.Number("n", 1, 9) != 7 || good.Date("day").Day() != 28 || good.Phone("phone") == "" || !good.Checked("box") {
		t.Errorf("%v", good.Wrong())
	}
	if !good.OK() || good.Text("none", Line) != "" || !good.OK() {
		t.Errorf("wrong: %v", good.Wrong())
	}
	bad := newForm(url.Values{"control": {"a\x01"}, "turned": {"a\u202eb"}, "broken": {"\xff"}, "lines": {"a\nb"}, "long": {strings.Repeat("ä", 201)},
		"mail": {"a@b@c"}, "header": {"a@b.example\r\nBcc: c@d.example"}, "n": {"10"}, "day": {"2026-02-30"}, "choice": {"x"}, "phone": {"<b>"}})
	for _, field := range []string{"control", "turned", "broken", "lines", "long"} {
		if got := bad.Text(field, Line); got != "" || bad.Error(field) == "" {
			t.Errorf("%s: %q", field, got)
		}
	}
	bad.Mail("mail")
	bad.Mail("header")
	bad.Number("n", 1, 9)
	bad.Date("day")
	bad.Choice("choice", "a", "b")
	bad.Required("none", Line)
	bad.Secret("secret")
	bad.Phone("phone")
	for _, field := range []string{"mail", "header", "n", "day", "choice", "none", "secret", "phone"} {
		if bad.Error(field) == "" {
			t.Errorf("%s is taken", field)
		}
	}
}

// FuzzLocalPath looks that a path that counts as ours stays on our host, as browsers read addresses.
func FuzzLocalPath(f *testing.F) {
	for _, s := range []string{"/portal/", "//evil.example", "/\\evil", "/portal/../..//x", "/portal/\n", "https:/portal/", "/.well-known/allotment/sso/login"} {
		f.Add(s)
	}
	base, _ := url.Parse("https://portal.example/portal/login")
	f.Fuzz(func(t *testing.T, s string) {
		if !LocalPath(s) {
			return
		}
		to, err := base.Parse(s)
		if err == nil && (to.Host != base.Host || to.Scheme != base.Scheme) {
			t.Errorf("%q leads to %s", s, to)
		}
	})
}

// FuzzText looks that no text that a form gives has what could deceive a reader.
func FuzzText(f *testing.F) {
	for _, s := range []string{"Anna", "a\u202eb", "\x00", "\xff", " x ", "a\nb", "\ufeff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := newForm(url.Values{"x": {s}}).Text("x", Line)
		if strings.ContainsAny(got, "\x00\n\r\u202e\ufeff") || strings.TrimSpace(got) != got {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}
