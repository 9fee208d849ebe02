package newmodule

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"allotment/builder/profile"
)

// source is a source folder with our trees and a module.
func source(t *testing.T) string {
	t.Helper()
	trees, err := filepath.Abs("../../trees")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(trees, filepath.Join(dir, "trees")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "modules", "there"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestMake(t *testing.T) {
	src := source(t)
	for name, want := range map[string]string{"wiki": "Wiki", "tool-shed": "Tool shed", "x": `Our "best" page`} {
		title := ""
		if name == "x" {
			title = want
		}
		dir, err := Make(src, name, title)
		if err != nil {
			t.Fatal(err)
		}
		m, err := profile.ReadModule(dir)
		if err != nil {
			t.Fatal(err)
		}
		if m.Name != name || m.Title != want || m.HTTP.Path != "/"+name || !strings.Contains(m.Templates[0].Text, "greeting") {
			t.Errorf("module is %+v", m.Module)
		}
	}
}

func TestRefusals(t *testing.T) {
	src := source(t)
	if _, err := Make(src, "there", ""); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a module that is there: %v", err)
	}
	for _, c := range []struct{ name, title, want string }{
		{"../out", "", "is not usable"},
		{"", "", "is missing"},
		{"Wiki", "", "is not usable"},
		{"debian-base", "", `a tree is called "debian-base" too`},
		{"wiki", "two\nlines", "has a line break"},
		{"wiki", "\a", "module.toml"},
	} {
		if _, err := Make(src, c.name, c.title); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("name %q, title %q: %v, want %q", c.name, c.title, err, c.want)
		}
	}
	left, err := os.ReadDir(filepath.Join(src, "modules"))
	if err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
}
