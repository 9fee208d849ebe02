package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplaceTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doc.md")
	table := row{"MariaDB", true, false, 207.6, 280.44, 45}.String()
	for _, text := range []string{"a\n<!-- bench/database -->\nold\n<!-- end -->\nb\n", ""} {
		if text != "" { // the second time it is what the first has written
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := replaceTable(path, table); err != nil {
			t.Fatal(err)
		}
		want := "a\n<!-- bench/database -->\n\n| MariaDB | yes | no | 208 | 280.4 | 45 |\n\n<!-- end -->\nb\n"
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("got %q, %v", b, err)
		}
	}
	for _, text := range []string{"", "<!-- bench/database -->\n", "<!-- end -->"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := replaceTable(path, table); err == nil {
			t.Errorf("found a place in %q", text)
		}
	}
}

// The decision can take the table.
func TestDecisionHasThePlace(t *testing.T) {
	b, err := os.ReadFile("../../docs/decisions/0008-databases-on-btrfs.md")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := replaceTable(path, "x"); err != nil {
		t.Error(err)
	}
}
