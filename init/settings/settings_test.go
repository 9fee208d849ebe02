package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"allotment/image"
)

func manifest() *image.Manifest {
	return &image.Manifest{
		Organisation: image.Organisation{Name: "Club", Domain: "allotment.internal", Language: "en", TimeZone: "Etc/UTC"},
		Settings:     map[string]map[string]any{"chat": {"history": float64(30), "gone": "x"}},
		Modules: []image.Module{{Name: "chat", Settings: []image.Setting{
			{Name: "history", Type: "integer", Default: float64(7), Min: 1, Max: 365},
			{Name: "open", Type: "boolean", Default: false},
			{Name: "motd", Type: "string", Default: "Hello", Max: 20},
		}}, {Name: "page"}},
	}
}

func openStore(t *testing.T, dir string, m *image.Manifest) (*Store, string) {
	t.Helper()
	var log bytes.Buffer
	s, err := Open(dir, m, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s, log.String()
}

// change sets some of the chat's settings and saves them.
func change(t *testing.T, s *Store, changes map[string]any) {
	t.Helper()
	v, err := s.Values().WithModule("chat", changes)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save(v); err != nil {
		t.Fatal(err)
	}
}

func wantChat(t *testing.T, s *Store, history int, open bool, motd string) {
	t.Helper()
	got, want := s.Values().Module("chat"), map[string]any{"history": history, "open": open, "motd": motd}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, want %#v", got, want)
	}
}

func TestWhatCounts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "settings")
	s, _ := openStore(t, dir, manifest())
	wantChat(t, s, 30, false, "Hello")
	change(t, s, map[string]any{"history": json.Number("90"), "open": true})
	wantChat(t, s, 90, true, "Hello")
	s, log := openStore(t, dir, manifest())
	wantChat(t, s, 90, true, "Hello")
	if log != "" {
		t.Errorf("logged %q", log)
	}
	change(t, s, map[string]any{"history": nil})
	wantChat(t, s, 30, true, "Hello")
	if got := s.Values().Module("page"); len(got) != 0 {
		t.Errorf("page has %v", got)
	}
}

func TestRefusedFieldsAreAllNamed(t *testing.T) {
	s, _ := openStore(t, t.TempDir(), manifest())
	_, err := s.Values().WithModule("chat", map[string]any{"history": 400, "open": "yes", "colour": "red", "motd": "Hi"})
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatal(err)
	}
	want := `cannot take the settings: colour is no setting of the module "chat"; history must be 365 or less; ` +
		`open must be true or false`
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	wantChat(t, s, 30, false, "Hello")
	o := s.Values().Organisation()
	o.Domain, o.Name = "nowhere", ""
	_, err = s.Values().WithOrganisation(o)
	if !errors.As(err, &faults) || len(faults) != 2 || faults[0].Field != "domain" || faults[1].Field != "name" {
		t.Errorf("got %v", err)
	}
}

func TestOrganisation(t *testing.T) {
	dir := t.TempDir()
	s, _ := openStore(t, dir, manifest())
	o := s.Values().Organisation()
	o.Domain = "club.example.org"
	v, err := s.Values().WithOrganisation(o)
	if err := errors.Join(err, s.Save(v)); err != nil {
		t.Fatal(err)
	}
	m := manifest()
	m.Organisation.Name, m.Organisation.Domain = "Garden Club", "other.example.org"
	s, _ = openStore(t, dir, m)
	want := image.Organisation{Name: "Garden Club", Domain: "club.example.org", Language: "en", TimeZone: "Etc/UTC"}
	if got := s.Values().Organisation(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A release that knows less, or wants another form, neither gives out what was stored nor loses it.
func TestOtherReleases(t *testing.T) {
	dir := t.TempDir()
	s, _ := openStore(t, dir, manifest())
	change(t, s, map[string]any{"history": 90, "motd": "Hi"})
	older := manifest()
	older.Modules[0].Settings = []image.Setting{{Name: "history", Type: "integer", Default: float64(7), Max: 50}}
	s, _ = openStore(t, dir, older)
	if got := s.Values().Module("chat"); !reflect.DeepEqual(got, map[string]any{"history": 30}) {
		t.Errorf("got %v", got)
	}
	change(t, s, map[string]any{"history": 40})
	s, _ = openStore(t, dir, manifest())
	wantChat(t, s, 40, false, "Hi")
}

// Values that were handed out before do not change with the store.
func TestValuesDoNotChange(t *testing.T) {
	s, _ := openStore(t, t.TempDir(), manifest())
	change(t, s, map[string]any{"motd": "one"})
	before := s.Values()
	change(t, s, map[string]any{"motd": "two"})
	if got := before.Module("chat")["motd"]; got != "one" {
		t.Errorf("got %v", got)
	}
	if err := s.Save(before); err != nil {
		t.Fatal(err)
	}
	wantChat(t, s, 30, false, "one")
}

func TestDamageFallsBack(t *testing.T) {
	for name, damage := range map[string]string{
		"empty": "", "torn": `{"format": 1, "mod`, "twice": `{"format":1}{"format":1}`, "later": `{"format":2}`,
		"unknown key": `{"format":1,"users":{}}`, "wrong type": `{"format":1,"modules":{"chat":7}}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, _ := openStore(t, dir, manifest())
			change(t, s, map[string]any{"motd": "one"})
			change(t, s, map[string]any{"motd": "two"})
			if err := os.WriteFile(filepath.Join(dir, fileName), []byte(damage), 0o600); err != nil {
				t.Fatal(err)
			}
			s, log := openStore(t, dir, manifest())
			wantChat(t, s, 30, false, "one")
			if !strings.Contains(log, fileName) {
				t.Errorf("logged %q", log)
			}
			if b, err := os.ReadFile(filepath.Join(dir, fileName+".damaged")); err != nil || string(b) != damage {
				t.Errorf("the damaged file is lost: %q, %v", b, err)
			}
			change(t, s, map[string]any{"motd": "three"})
			s, log = openStore(t, dir, manifest())
			wantChat(t, s, 30, false, "three")
			if log != "" {
				t.Errorf("logged %q", log)
			}
		})
	}
}

// A cut after any of the steps of Save leaves the settings from before or after.
func TestCutWhileSaving(t *testing.T) {
	good := func(motd string) string {
		return fmt.Sprintf(`{"format":1,"modules":{"chat":{"motd":%q}}}`, motd)
	}
	for i, files := range []map[string]string{
		{fileName: good("one"), lastName + ".new": `{"for`},
		{fileName: good("one"), lastName: good("one"), fileName + ".new": `{"for`},
		{fileName: good("one"), lastName: good("one"), fileName + ".new": good("two")},
	} {
		dir := t.TempDir()
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, log := openStore(t, dir, manifest())
		wantChat(t, s, 30, false, "one")
		if log != "" {
			t.Errorf("cut %d: logged %q", i, log)
		}
	}
}

func TestSaveFails(t *testing.T) {
	dir := t.TempDir()
	s, _ := openStore(t, dir, manifest())
	if err := os.Mkdir(filepath.Join(dir, fileName+".new"), 0o700); err != nil {
		t.Fatal(err)
	}
	v, err := s.Values().WithModule("chat", map[string]any{"motd": "Hi"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save(v); err == nil {
		t.Error("saved over a folder")
	}
	wantChat(t, s, 30, false, "Hello")
}

// Whatever the file holds, what is given out has the declared types.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", "{}", `{"format":1}`, `{"format":1,"organisation":{"name":"x"},"modules":{"chat":{"history":7,"open":true}}}`,
		`{"format":1,"modules":{"chat":null}}`, `{"format":1,"modules":{"chat":{"history":1e400}}}`, `[]`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parse(b)
		if err != nil {
			return
		}
		v := Values{manifest(), got}
		all := v.Module("chat")
		if n, ok := all["history"].(int); !ok || n < 1 || n > 365 {
			t.Errorf("history is %#v", all["history"])
		}
		if faults := v.Organisation().Check(); len(faults) > 0 {
			t.Errorf("organisation: %v", faults)
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parse(again); err != nil {
			t.Errorf("cannot read again what was written: %v", err)
		}
	})
}
