package profile

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"allotment/image"
)

// everything writes the source folder whose files use every key, and returns its path.
func everything(t *testing.T) string {
	t.Helper()
	all, err := txtar.ParseFile("testdata/good/everything.txtar")
	if err != nil {
		t.Fatal(err)
	}
	return source(t, all.Files...)
}

// TestEveryKeyCanBeUsed reads files that use every key: the twin of TestEveryKeyHasABadFile.
func TestEveryKeyCanBeUsed(t *testing.T) {
	dir := everything(t)
	if _, err := Load(filepath.Join(dir, "profiles/club.toml")); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, name := range []string{
		"profiles/club.toml", "modules/everything/module.toml", "modules/directory/module.toml",
	} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		d, _ := decode(name, text, &map[string]any{})
		for key := range d.spans {
			used[index.ReplaceAllString(key, "")] = true
		}
	}
	// A service gets ready once, modules have the keys of settings, and other files those of trees.
	other := regexp.MustCompile(`^(service\.ready\.(every|failures)|settings|tree\..*)$`)
	for _, v := range []any{Profile{}, ModuleSpec{}} {
		for _, key := range leaves(reflect.TypeOf(v), "") {
			if !used[key] && !other.MatchString(key) {
				t.Errorf("no good file has %s", key)
			}
		}
	}
}

// TestModuleSurvivesJSON reads back what the manifest has of a module.
func TestModuleSurvivesJSON(t *testing.T) {
	p, err := Load(filepath.Join(everything(t), "profiles/club.toml"))
	if err != nil {
		t.Fatal(err)
	}
	m := p.Modules[0].Module
	if m.Templates[0].Text == "" || !strings.HasPrefix(m.Templates[0].Text, "{{define") {
		t.Errorf("text of the template: %q", m.Templates[0].Text)
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back image.Module
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	for i := range back.Templates { // the source file stays behind at most by name
		if back.Templates[i].Text != m.Templates[i].Text {
			t.Errorf("template %d is %q", i, back.Templates[i].Text)
		}
	}
	for i := range m.Settings { // numbers are of another type in JSON, and mean the same
		a, errA := m.Settings[i].Check(m.Settings[i].Default)
		b, errB := back.Settings[i].Check(back.Settings[i].Default)
		if a != b || errA != nil || errB != nil {
			t.Errorf("setting %q: %v (%v), %v (%v)", m.Settings[i].Name, a, errA, b, errB)
		}
		m.Settings[i].Default, back.Settings[i].Default = nil, nil
	}
	if d := cmp.Diff(m, back); d != "" {
		t.Errorf("module changes on its way through JSON: %s", d)
	}
}

func TestOrganisationHasDefaults(t *testing.T) {
	p, err := Load(filepath.Join(source(t), "profiles/club.toml"))
	if err != nil {
		t.Fatal(err)
	}
	want := image.Organisation{Name: "Club", Domain: "allotment.internal", Language: "en", TimeZone: "Etc/UTC"}
	if p.Organisation != want {
		t.Errorf("organisation is %+v", p.Organisation)
	}
}

// TestNeighboursOfOneModule checks a module by itself: its neighbours are all modules that there are, those with faults too.
func TestNeighboursOfOneModule(t *testing.T) {
	dir := everything(t)
	if _, err := ReadModule(filepath.Join(dir, "modules/everything")); err != nil {
		t.Error(err)
	}
	web := filepath.Join(dir, "modules/web/module.toml")
	if err := os.WriteFile(web, []byte("format = \"x\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadModule(filepath.Join(dir, "modules/everything")); err != nil {
		t.Errorf("faults of a neighbour count: %v", err)
	}
	if err := os.Remove(web); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadModule(filepath.Join(dir, "modules/everything")); err == nil || !strings.Contains(err.Error(), `no module "web"`) {
		t.Errorf("a neighbour that is not there: %v", err)
	}
}

// FuzzTemplate feeds any text to the checks of templates: no panic, and every fault has a place in the text.
func FuzzTemplate(f *testing.F) {
	all, err := txtar.ParseFile("testdata/good/everything.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range all.Files {
		if strings.HasSuffix(file.Name, ".tmpl") {
			f.Add(string(file.Data))
		}
	}
	f.Add("{{with $x := .Settings.a}}{{else with .B}}{{$x}}{{end}}{{template \"x\"}}{{break}}")
	m := &image.Module{Name: "web", Settings: []image.Setting{{Name: "a"}}}
	f.Fuzz(func(t *testing.T, text string) {
		d := checkText("a.tmpl", text, m)
		for _, fault := range d.sorted() {
			_ = fault.Error()
			if lines := strings.Count(text, "\n") + 1; fault.Line < 1 || fault.Line > lines || fault.Col < 1 {
				t.Errorf("fault at %d:%d of %d lines", fault.Line, fault.Col, lines)
			}
		}
	})
}
