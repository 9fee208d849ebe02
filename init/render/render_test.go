package render

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"allotment/image"
	"allotment/init/plan"
	"allotment/init/secret"
)

func module(name string, templates ...image.Template) *plan.Module {
	m := &plan.Module{
		Name: name, FirstID: 1 << 20, MemoryMax: 128 << 20, Declared: &image.Module{Name: name},
		IPv4: netip.MustParsePrefix("10.209.0.3/16"), IPv6: netip.MustParsePrefix("fd00:a110::3/64"),
	}
	for _, t := range templates {
		m.Templates = append(m.Templates, plan.Template{Template: t, UID: 33, GID: 34})
	}
	return m
}

// withLDAP gives the module an account in the directory, and its secrets, which are returned.
func withLDAP(t *testing.T, m *plan.Module, probe bool) map[string]secret.Value {
	t.Helper()
	m.Declared.LDAP = &image.LDAP{Read: []string{"people"}, Probe: probe}
	for _, name := range []string{"ldap", "probe"} {
		m.Secrets = append(m.Secrets, plan.Secret{Secret: image.Secret{Name: name, Kind: "password"}})
	}
	s, err := secret.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Ensure(m, image.Organisation{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRender(t *testing.T) {
	text := `{{.Organisation.Name}} {{.Organisation.TimeZone}}
{{range lines .Settings.rooms}}[{{.}}]{{end}}
{{if .Settings.open}}open{{end}} {{.Settings.days}}
{{.Module.Name}} {{.Module.IPv4}} {{.Module.IPv6}} {{.Module.MemoryMax}}
{{.Host.IPv4}} {{.Host.IPv6}} {{.Peers.web.Host}}
{{.LDAP.URI}} {{.LDAP.Suffix}} {{.LDAP.BindDN}} {{eq .LDAP.Password .Secrets.ldap}}
`
	m := module("chat", image.Template{Name: "chat.conf", Source: "chat.conf.tmpl", Text: text})
	m.Peers = []plan.Peer{{Module: module("web")}}
	secrets := withLDAP(t, m, false)
	d, err := NewData(&plan.Plan{Modules: []*plan.Module{m}}, m, image.Organisation{Name: "Club", TimeZone: "Etc/UTC"},
		map[string]any{"rooms": "a\n\n b \n", "open": true, "days": 7}, map[string]map[string]secret.Value{"chat": secrets})
	if err != nil {
		t.Fatal(err)
	}
	files, err := Render(m, d)
	if err != nil {
		t.Fatal(err)
	}
	want := `Club Etc/UTC
[a][b]
open 7
chat 10.209.0.3 fd00:a110::3 134217728
10.209.0.1 fd00:a110::1 web.internal
ldap://directory.internal o=organisation cn=chat,ou=services,o=organisation true
`
	if got := string(files["chat.conf"]); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDirectoryKnowsItsReaders(t *testing.T) {
	dir, chat, web, page := module("directory"), module("chat"), module("web"), module("page")
	secrets := map[string]map[string]secret.Value{"chat": withLDAP(t, chat, true), "web": withLDAP(t, web, false)}
	p := &plan.Plan{Modules: []*plan.Module{dir, chat, web, page}}
	d, err := NewData(p, dir, image.Organisation{}, nil, secrets)
	if err != nil {
		t.Fatal(err)
	}
	want := []Reader{
		{
			Module: "chat", DN: "cn=chat,ou=services,o=organisation", Password: secrets["chat"]["ldap"].Reveal(),
			Read: []string{"people"}, Probe: true, ProbeName: "probe-chat", ProbePassword: secrets["chat"]["probe"].Reveal(),
		},
		{
			Module: "web", DN: "cn=web,ou=services,o=organisation", Password: secrets["web"]["ldap"].Reveal(),
			Read: []string{"people"},
		},
	}
	if !reflect.DeepEqual(d.LDAP.Readers, want) {
		t.Errorf("got %+v", d.LDAP.Readers)
	}
	if d, err := NewData(p, page, image.Organisation{}, nil, secrets); err != nil || d.LDAP != nil {
		t.Errorf("a module that may not read has %+v, %v", d.LDAP, err)
	}
	// No account is ever without a password.
	delete(secrets["chat"], "probe")
	for _, m := range []*plan.Module{dir, chat} {
		if _, err := NewData(p, m, image.Organisation{}, nil, secrets); err == nil {
			t.Errorf("module %q got an account without a password", m.Name)
		}
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	d := Data{Settings: map[string]any{"open": true}, Secrets: map[string]string{"db": "hunter2hunter2"}}
	for text, want := range map[string]string{
		"a\nb\n{{.Settings.colour}}":       `modules/chat/x.tmpl:3:11: executing "modules/chat/x.tmpl" at <.Settings.colour>: map has no entry`,
		"a\n{{.Secrets.other}}":            "modules/chat/x.tmpl:2:10: ",
		"a\n{{if}}":                        "modules/chat/x.tmpl:2: missing value for if",
		"{{.LDAP.URI}}":                    "modules/chat/x.tmpl:1:7: ",
		"\n\n{{range .Secrets.db}}{{end}}": "range can't iterate over [secret]",
		"\n{{exec .Secrets.db}}":           `modules/chat/x.tmpl:2: function "exec" not defined`,
		"\n{{lua .Organisation}}":          "modules/chat/x.tmpl:2:2: ",
		"{{template \"y\"}}":               `"y" not defined`,
		`{{printf "%0999999999d" 1}}{{range lines (printf "%5000000s" "a")}}{{end}}` + `{{printf "%5000000s" "a"}}`: "more than 4194304 bytes",
	} {
		m := module("chat", image.Template{Name: "good", Source: "good.tmpl", Text: "x"},
			image.Template{Name: "x", Source: "x.tmpl", Text: text})
		files, err := Render(m, d)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || files != nil {
			t.Errorf("%q: got %v with %v", text, err, files)
		}
	}
}

func TestFunctions(t *testing.T) {
	d := Data{Settings: map[string]any{"s": "a\"b\\c$d`e'f", "n": "l\nm<ü", "i": 7, "b": true}}
	for text, want := range map[string]string{
		`{{json .Settings.n}}`:                   `"l\nm\u003cü"`,
		`{{json .Settings}}`:                     `{"b":true,"i":7,"n":"l\nm\u003cü","s":"a\"b\\c$d` + "`" + `e'f"}`,
		`{{quote .Settings.s}}`:                  `"a\"b\\c\$d` + "\\`" + `e'f"`,
		`{{quote .Settings.i}}`:                  `"7"`,
		`{{lua .Settings.s}}`:                    `"a\"b\\c$d` + "`" + `e'f"`,
		`{{lua .Settings.n}}`:                    `"l\010m<ü"`,
		`{{lua .Settings.b}}`:                    `true`,
		`{{php .Settings.s}}`:                    `'a"b\\c$d` + "`" + `e\'f'`,
		`{{php .Settings.i}}`:                    `7`,
		`{{base64 .Settings.n}}`:                 `bAptPMO8`,
		`{{range lines "a\n\n b"}}{{.}};{{end}}`: `a;b;`,
	} {
		m := module("m", image.Template{Name: "f", Source: "f.tmpl", Text: text})
		files, err := Render(m, d)
		if err != nil || string(files["f"]) != want {
			t.Errorf("%s: got %s, %v, want %s", text, files["f"], err, want)
		}
	}
	if got, err := quote("a\nb"); err == nil {
		t.Errorf("quoted a line break as %s", got)
	}
}

func TestInstallTellsWhatChanged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("giving files to others needs root")
	}
	run := t.TempDir()
	m := module("chat", image.Template{Name: "a"}, image.Template{Name: "b"})
	install := func(a, b string, want ...string) {
		t.Helper()
		got, err := Install(run, m, map[string][]byte{"a": []byte(a), "b": []byte(b)})
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	look := func(want string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(run, "chat", "b"))
		if err != nil || string(b) != want {
			t.Errorf("b holds %q, %v, want %q", b, err, want)
		}
	}
	install("1", "1", "a", "b")
	install("1", "2", "b")
	install("1", "2")
	look("2")
	if err := Restore(run, m); err != nil {
		t.Fatal(err)
	}
	look("1")
	st, err := os.Stat(filepath.Join(run, "chat", "a"))
	if err != nil {
		t.Fatal(err)
	}
	if sys := st.Sys().(*syscall.Stat_t); sys.Uid != 1<<20+33 || sys.Gid != 1<<20+34 || st.Mode() != 0o400 {
		t.Errorf("a belongs to %d and %d, %v", sys.Uid, sys.Gid, st.Mode())
	}
	if _, err := Install(run, m, map[string][]byte{"a": nil}); err == nil {
		t.Error("installed a file that was not rendered")
	}
	look("1")
}

// What a text becomes in another language stays one literal of it, whatever the text.
func FuzzLiterals(f *testing.F) {
	for _, text := range []string{"", `a"b`, `\`, `'`, "\n", "\x00", "ü", "$(x)", "`", "\\\"", "\x7f1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := lua(text); err != nil || unescape(got, '"') != text {
			t.Errorf("lua made %s of %q", got, text)
		}
		if got, err := php(text); err != nil || unescape(got, '\'') != text {
			t.Errorf("php made %s of %q", got, text)
		}
		if got, err := quote(text); err == nil && unescape(got, '"') != text {
			t.Errorf("quote made %s of %q", got, text)
		}
	})
}

// unescape reads a literal between two marks, where a backslash precedes a character that means itself, or three digits.
func unescape(literal string, mark byte) string {
	if len(literal) < 2 || literal[0] != mark || literal[len(literal)-1] != mark {
		return "not a literal"
	}
	var out []byte
	in := literal[1 : len(literal)-1]
	for i := 0; i < len(in); i++ {
		switch {
		case in[i] == mark:
			return "the literal ends early"
		case in[i] == '\\' && i+3 < len(in) && in[i+1] >= '0' && in[i+1] <= '1' && mark == '"':
			out = append(out, (in[i+1]-'0')*100+(in[i+2]-'0')*10+in[i+3]-'0')
			i += 3
		case in[i] == '\\':
			if i++; i == len(in) {
				return "the mark at the end is escaped"
			}
			out = append(out, in[i])
		default:
			out = append(out, in[i])
		}
	}
	return string(out)
}
