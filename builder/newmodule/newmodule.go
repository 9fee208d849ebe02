// Package newmodule makes the folder of a new module: a small one that works, for its author to change.
package newmodule

import (
	_ "embed" // the files
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"allotment/builder/profile"
)

//go:embed files/module.toml
var declaration string

//go:embed files/index.html.tmpl
var page []byte

// Make makes modules/NAME in a source folder and returns its path. A folder that is there already is left as it is. An
// empty title becomes the name.
func Make(source, name, title string) (string, error) {
	if err := profile.CheckName(name); err != nil {
		return "", fmt.Errorf("cannot make module %q: %w", name, err)
	}
	if title == "" {
		title = strings.ToUpper(name[:1]) + strings.ReplaceAll(name[1:], "-", " ")
	}
	dir := filepath.Join(source, "modules", name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("cannot make module %q: %w", name, err)
	}
	if err := fill(dir, name, title); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("cannot make module %q: %w", name, err)
	}
	return dir, nil
}

// fill writes the files and reads them as the builder does, since a title can have what TOML does not take, and a tree
// the same name.
func fill(dir, name, title string) error {
	text := strings.NewReplacer("NAME", name, `"TITLE"`, strconv.Quote(title)).Replace(declaration)
	if err := os.WriteFile(filepath.Join(dir, "module.toml"), []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.html.tmpl"), page, 0o644); err != nil {
		return err
	}
	_, err := profile.ReadModule(dir)
	return err
}
