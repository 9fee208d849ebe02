package gateway

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestReadStatus reads what the gateway wrote, and nothing that somebody has put in its place.
func TestReadStatus(t *testing.T) {
	const good = `{"authority":"AA:BB","certificates":[{"names":["club.org"],"failures":2,"why":"away"}]}`
	outside := filepath.Join(t.TempDir(), "secret.json")
	if err := os.WriteFile(outside, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, place := range map[string]func(path string) error{
		"":           func(path string) error { return os.WriteFile(path, []byte(good), 0o600) },
		"a link out": func(path string) error { return os.Symlink(outside, path) },
		"a pipe":     func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a folder":   func(path string) error { return os.Mkdir(path, 0o700) },
		"nothing":    func(string) error { return nil },
		"half of it": func(path string) error { return os.WriteFile(path, []byte(good[:40]), 0o600) },
		"far too big": func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat(" ", mostStatus)+good), 0o600)
		},
	} {
		folder := t.TempDir()
		if err := place(filepath.Join(folder, StatusFile)); err != nil {
			t.Fatal(err)
		}
		s, err := ReadStatus(folder)
		if (err == nil) != (what == "") {
			t.Errorf("%s: error %v", what, err)
		}
		if read := s.Authority == "AA:BB" && len(s.Certificates) == 1 && s.Certificates[0].Why == WhyAway; read != (what == "") {
			t.Errorf("%s: %+v", what, s)
		}
	}
}
