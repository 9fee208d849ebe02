package builder

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"allotment/builder/profile"
	"allotment/builder/rootfs"
	"allotment/builder/tools"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

// pythonTree is a tree with the given content of a Python module, and what is none.
func pythonTree(t *testing.T, source string) *rootfs.Tree {
	t.Helper()
	tree := rootfs.New()
	for p, text := range map[string]string{
		"/usr/lib/python3/dist-packages/club/garden.py": source,
		"/usr/lib/python3.13/spade.py":                  "BEDS = frozenset({'leek', 'kale', 'bean', 'beet'})\n",
		"/srv/other.py":                                 "import spade\n",
	} {
		if err := tree.PutFile(p, 0o644, rootfs.Content{Bytes: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

func TestBytecode(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the tool root: not in -short mode")
	}
	dir, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	root, err := tools.OpenFrom(context.Background(), dir, profile.Debian{}, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	compile := func(source string) (*rootfs.Tree, error) {
		tree, work := pythonTree(t, source), filepath.Join(t.TempDir(), "python")
		return tree, addBytecode(t.Context(), root.With(filepath.Dir(work)), tree, work)
	}
	var before []byte
	for range 2 { // the same in another folder and at another time
		tree, err := compile("import spade\n\ndef dig(bed):\n    return bed in spade.BEDS\n")
		if err != nil {
			t.Fatal(err)
		}
		var all []byte
		for _, p := range []string{"/usr/lib/python3/dist-packages/club/__pycache__/garden.cpython-313.pyc",
			"/usr/lib/python3.13/__pycache__/spade.cpython-313.pyc"} {
			b, err := tree.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b[4:8], []byte{1, 0, 0, 0}) { // PEP 552: by hash, unchecked
				t.Errorf("%s has the flags %x", p, b[4:8])
			}
			all = append(all, b...)
		}
		if !bytes.Contains(all, []byte("/usr/lib/python3/dist-packages/club/garden.py")) {
			t.Error("bytecode does not name its source as it is on the device")
		}
		if before != nil && !bytes.Equal(before, all) {
			t.Error("the same sources give other bytecode")
		}
		before = all
		if tree.Lookup("/srv/__pycache__") != nil {
			t.Error("what is no module of Python's was compiled")
		}
	}
	if _, err := compile("def dig(:\n"); err == nil {
		t.Error("a source that cannot be compiled goes unnoticed")
	}
}
