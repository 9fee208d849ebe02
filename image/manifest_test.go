package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadManifest(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) string {
		path := filepath.Join(dir, "manifest.json")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	m, err := ReadManifest(write(`{"format": 1, "name": "club", "of": "a later day"}`))
	if err != nil || m.Name != "club" {
		t.Errorf("read %+v, %v", m, err)
	}
	if _, err := ReadManifest(write(`{"format": 2, "name": "club"}`)); err == nil || !strings.Contains(err.Error(), "its format is 2, not 1") {
		t.Errorf("another format: %v", err)
	}
	if _, err := ReadManifest(write(`{`)); err == nil {
		t.Error("half a manifest was read")
	}
	if _, err := ReadManifest(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no manifest: %v", err)
	}
}
