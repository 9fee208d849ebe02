package profile

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"allotment/image"
)

// TestDeveloperProfile makes a developer image of every module that we have.
func TestDeveloperProfile(t *testing.T) {
	source := filepath.Join("..", "..")
	for _, name := range newLoader(source).modules() {
		p, err := Developer(source, name, image.AMD64)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if last := p.ModuleNames[len(p.ModuleNames)-1]; last != name || !p.Developer {
			t.Errorf("%s: modules %v, developer %t", name, p.ModuleNames, p.Developer)
		}
		if i := len(p.ModuleNames) - 1; p.Modules[i].LDAP != nil && !slices.Contains(p.ModuleNames[:i], "directory") {
			t.Errorf("%s reads the directory, which is not among %v", name, p.ModuleNames)
		}
	}
}

func TestDeveloperProfileOfNoModule(t *testing.T) {
	if _, err := Developer(filepath.Join("..", ".."), "direktory", image.AMD64); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("error %v", err)
	}
}

func TestClosureEndsInACircle(t *testing.T) {
	source := t.TempDir()
	for name, text := range map[string]string{
		"a": "[[peer]]\nmodule = \"b\"\nports = [1]\n[ldap]\nread = []\n",
		"b": "[[service]]\nneeds = [\"own\", \"c.main\"]\n", "c": "[[migration]]\nneeds = [\"a.main\"]\n", "directory": "", "d": "",
	} {
		dir := filepath.Join(source, "modules", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "module.toml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := newLoader(source).closure("a"); !slices.Equal(got, []string{"c", "b", "directory", "a"}) {
		t.Errorf("closure %v", got)
	}
}
