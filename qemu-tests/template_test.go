package qemutests

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/builder/profile"
	"allotment/init/plan"
	"allotment/init/render"
	"allotment/init/secret"
	"allotment/init/settings"
)

// renderAll renders the templates of a profile's modules as the device would, with the settings that it begins with.
func renderAll(t *testing.T, path string) error {
	t.Helper()
	m := manifestOf(t, path)
	p, err := plan.New(m)
	if err != nil {
		t.Fatal(err)
	}
	store, err := secret.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	form, err := settings.Open(t.TempDir(), m, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	o := form.Values().Organisation()
	secrets := map[string]map[string]secret.Value{}
	for _, m := range p.Modules {
		if secrets[m.Name], err = store.Ensure(m, o, time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	var errs []error
	for _, m := range p.Modules {
		d, err := render.NewData(p, m, o, form.Values().Module(m.Name), secrets)
		if err == nil {
			_, err = render.Render(m, d)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// TestWhatIsBuiltCanBeRendered renders the templates of the profiles that we ship.
func TestWhatIsBuiltCanBeRendered(t *testing.T) {
	profiles, err := filepath.Glob("../profiles/*.toml")
	if err != nil || len(profiles) == 0 {
		t.Fatalf("no profiles: %v", err)
	}
	for _, path := range append(profiles, everything(t)) {
		if err := renderAll(t, path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestTemplatesHaveOneLanguage wants that the builder lets templates use just what the device gives them.
func TestTemplatesHaveOneLanguage(t *testing.T) {
	fields := func(v any, but ...string) []string {
		var all []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			if !f.Anonymous && !slices.Contains(but, f.Name) {
				all = append(all, f.Name)
			}
		}
		slices.Sort(all)
		return all
	}
	for text, want := range map[string][]string{
		"{{ghost}}":               slices.Sorted(maps.Keys(render.Functions())),
		"{{.Ghost}}":              fields(render.Data{}),
		"{{.Organisation.Ghost}}": fields(render.Data{}.Organisation),
		"{{.Module.Ghost}}":       fields(render.Module{}),
		"{{.Host.Ghost}}":         fields(render.Addresses{}),
		"{{.LDAP.Ghost}}":         fields(render.LDAP{}, "Readers"), // of the directory alone
	} {
		path := everything(t)
		template := filepath.Join(filepath.Dir(path), "..", "modules", "everything", "app.conf.tmpl")
		if err := os.WriteFile(template, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := profile.Load(path)
		var faults profile.Faults
		if !errors.As(err, &faults) || len(faults) != 1 {
			t.Fatalf("%s: %v", text, err)
		}
		_, allowed, _ := strings.Cut(faults[0].Remedy, "llowed: ")
		got := strings.Split(allowed, ", ")
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the builder allows %v, the device has %v", text, got, want)
		}
	}
}
