package builder

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"allotment/builder/rootfs"
	"allotment/internal/run"
)

// pythonHome begins the paths that Python imports from in Debian: the standard library and the packages' modules.
const pythonHome = "/usr/lib/python3"

// addBytecode adds the bytecode of the tree's Python modules, since an interpreter cannot write into a layer and would
// compile all that it imports at each start. The tool root's Python compiles, which is of the same release of Debian.
// Bytecode is the same for all architectures, and unchecked (PEP 552): it lies in the same layer as its source. The work
// is done in the folder work, where the contents stay until the tree is written.
func addBytecode(ctx context.Context, tools run.Runner, tree *rootfs.Tree, work string) error {
	n, err := writePython(tree, work)
	if err != nil || n == 0 {
		return err
	}
	err = tools.Run(ctx, run.Command{
		Name: "python3",
		Args: []string{"-IB", "-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash", "-s", work, "-p", "/", work},
	})
	if err != nil {
		return fmt.Errorf("cannot compile %d Python modules: %w", n, err)
	}
	return filepath.WalkDir(work, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".pyc") {
			return err
		}
		c, err := rootfs.HostFile(name)
		if err != nil {
			return err
		}
		return tree.PutFile(strings.TrimPrefix(name, work), 0o644, c)
	})
}

// writePython writes the tree's Python modules below dir and returns how many there are.
func writePython(tree *rootfs.Tree, dir string) (n int, err error) {
	for p, node := range tree.All() {
		if !strings.HasPrefix(p, pythonHome) || !strings.HasSuffix(p, ".py") || node.Type != tar.TypeReg {
			continue
		}
		n++
		if err := writePythonFile(tree, p, filepath.Join(dir, p)); err != nil {
			return n, fmt.Errorf("cannot write %q for its bytecode: %w", p, err)
		}
	}
	return n, nil
}

func writePythonFile(tree *rootfs.Tree, path, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	from, err := tree.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, from); err != nil {
		return err
	}
	return f.Close()
}
