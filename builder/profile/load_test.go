package profile

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"allotment/image"
)

var update = flag.Bool("update", false, "write what is wanted of the bad files anew")

// source writes the good source folder, with the files of a case over it, and returns its path.
func source(t *testing.T, over ...txtar.File) string {
	t.Helper()
	good, err := txtar.ParseFile("testdata/good/source.txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range slices.Concat(good.Files, over) {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoad(t *testing.T) {
	dir := source(t)
	p, err := Load(filepath.Join(dir, "profiles/club.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "club" || p.Version != "2026.11.1" || !slices.Equal(p.Archs, []image.Arch{image.AMD64, image.ARM64}) {
		t.Errorf("profile is %+v", p)
	}
	for _, name := range []string{"boot", "root", "debian-base", "web"} {
		if tr := p.Trees[name]; tr == nil || tr.Name != name {
			t.Errorf("tree %q is %+v", name, tr)
		}
	}
	m := p.Modules[0]
	if m.Importance != "normal" || m.Tree.Dir != filepath.Join(dir, "modules/web") {
		t.Errorf("module is %+v", m)
	}
	want := []image.User{{Name: "root"}, {Name: "www-data", UID: 33, GID: 33}, {Name: "feeder", UID: 1200, GID: 1200}}
	if d := cmp.Diff(want, m.Users); d != "" {
		t.Errorf("users of the module: %s", d)
	}
	one, err := ReadModule(filepath.Join(dir, "modules/web"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m, one); d != "" {
		t.Errorf("ReadModule differs from Load: %s", d)
	}
}

// TestOurFiles reads the profiles that we ship.
func TestOurFiles(t *testing.T) {
	profiles, err := filepath.Glob("../../profiles/*.toml")
	if err != nil || len(profiles) == 0 {
		t.Fatalf("no profiles: %v", err)
	}
	for _, path := range profiles {
		if _, err := Load(path); err != nil {
			t.Errorf("%v", err)
		}
	}
}

// badFiles are the files of testdata/bad.
func badFiles(t *testing.T) []string {
	t.Helper()
	cases, err := filepath.Glob("testdata/bad/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	return cases
}

// runBad reads the profile of a bad case and returns the case, its last file what is wanted, and what is wrong.
func runBad(t *testing.T, path string) (*txtar.Archive, Faults) {
	t.Helper()
	c, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := len(c.Files) - 1
	if c.Files[last].Name != "want" {
		last++
		c.Files = append(c.Files, txtar.File{Name: "want"})
	}
	dir := source(t, c.Files[:last]...)
	_, err = Load(filepath.Join(dir, "profiles/club.toml"))
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error is %v, want Faults", err)
	}
	for _, f := range faults {
		f.File = strings.TrimPrefix(f.File, dir+"/")
		f.Message = strings.ReplaceAll(f.Message, dir+"/", "")
		f.Remedy = strings.ReplaceAll(f.Remedy, dir+"/", "")
	}
	return c, faults
}

func TestBadFiles(t *testing.T) {
	for _, path := range badFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			c, faults := runBad(t, path)
			want, got := &c.Files[len(c.Files)-1], faults.Error()+"\n"
			if *update {
				want.Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(c), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(string(want.Data), got); d != "" {
				t.Errorf("messages (-want +got):\n%s", d)
			}
		})
	}
}

func TestMissingProfile(t *testing.T) {
	_, err := Load(filepath.Join(source(t), "profiles/clubs.toml"))
	if err == nil || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), `did you mean "club"?`) {
		t.Errorf("error is %v, want it to name the profile that is there", err)
	}
}

func TestMissingTree(t *testing.T) {
	dir := source(t)
	os.Remove(filepath.Join(dir, "trees/root.toml"))
	if _, err := Load(filepath.Join(dir, "profiles/club.toml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v, want that of the missing file", err)
	}
}

func TestSuggest(t *testing.T) {
	for word, want := range map[string]string{
		"modles": "modules", "channnel": "channel", "outputs": "outputs", "zzz": "", "x": "",
	} {
		if got := suggest(word, []string{"channel", "modules", "outputs"}); got != want {
			t.Errorf("suggest(%q) = %q, want %q", word, got, want)
		}
	}
}

// FuzzDecode feeds any bytes to the readers of all three formats: no panic, and every fault has a place in the text.
func FuzzDecode(f *testing.F) {
	good, err := txtar.ParseFile("testdata/good/source.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range good.Files {
		f.Add(file.Data)
	}
	f.Add([]byte("[[service]]\nready={http=\":1/\"}\n[service.x]\n[[service.y]]\n\"a.b\"=[[1],{c=2}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var p Profile
		var tr Tree
		var m ModuleSpec
		docs := make([]*document, 3)
		var ok [3]bool
		docs[0], ok[0] = decode("p", text, &p)
		docs[1], ok[1] = decode("t", text, &tr)
		docs[2], ok[2] = decode("m", text, &m)
		if ok[0] {
			checkProfile(docs[0], &p)
		}
		if ok[1] {
			checkTree(docs[1], "", &tr, Accounts{}.With(&tr), true)
		}
		if ok[2] {
			m.Tree.Dir = "testdata/none"
			checkTree(docs[2], "tree", &m.Tree, Accounts{}.With(&m.Tree), true)
			checkModule(docs[2], &m, "web", Accounts{}.With(&m.Tree), true)
			all := []declared{{docs[2], &m}}
			checkTogether(all, &neighbours{profile: "p", modules: map[string]*ModuleSpec{m.Name: &m}})
		}
		for i, d := range docs {
			if !ok[i] && len(d.faults) == 0 {
				t.Errorf("no fault although decoding failed")
			}
			lines := strings.Count(string(text), "\n") + 1
			for _, fault := range d.sorted() {
				_ = fault.Error()
				if fault.Line < 1 || fault.Line > lines || fault.Col < 1 {
					t.Errorf("fault at %d:%d of %d lines", fault.Line, fault.Col, lines)
				}
			}
		}
	})
}
