package modulecheck

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"allotment/internal/cache"
	"allotment/internal/run"
)

//go:embed install.sh
var installScript string

// install makes a normal installation and returns the path of a tar file of it, which the cache keeps.
func (o *Options) install(ctx context.Context, p *packages) (string, error) {
	above := p.above()
	dir, err := o.Cache.Make(ctx, "installed", cache.Key(installScript, p.below, above), func(tmp string) error {
		step := o.Progress.Step(fmt.Sprintf("install %d packages with their scripts", len(p.below)+len(above)), 0)
		err := o.runInstall(ctx, tmp, p.below, above)
		step.Done(err)
		return err
	})
	return filepath.Join(dir, "tree.tar"), err
}

func (o *Options) runInstall(ctx context.Context, dir string, below, above []debFile) error {
	packages := filepath.Join(dir, "packages")
	root := filepath.Join(dir, "root")
	for _, d := range []string{dir, packages, root} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	for name, list := range map[string][]debFile{"below": below, "above": above} {
		var names strings.Builder
		for _, d := range list {
			name := fmt.Sprintf("%s_%s.deb", d.Name, d.Arch)
			if err := os.Link(d.path, filepath.Join(packages, name)); err != nil {
				return err
			}
			fmt.Fprintln(&names, name)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(names.String()), 0o644); err != nil {
			return err
		}
	}
	tools, err := o.Tools.Unprivileged(ctx)
	if err != nil {
		return err
	}
	err = tools.Run(ctx, run.Command{
		Name: "fakeroot", Args: []string{"sh", "-c", installScript, "install.sh"}, Dir: dir,
		// Whoever may really change owners must not: a user namespace may lack the ids.
		Env: []string{"FAKEROOTDONTTRYCHOWN=1"},
	})
	if err != nil {
		return fmt.Errorf("cannot install the packages with their scripts: %w", err)
	}
	return nil
}
