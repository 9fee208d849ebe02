package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"allotment/builder/apt"
	"allotment/builder/lock"
	"allotment/builder/lock/resolve"
	"allotment/builder/modulecheck"
	"allotment/builder/newmodule"
	"allotment/builder/profile"
	"allotment/builder/tools"
)

func newModule(c *common) *cobra.Command {
	cmd := &cobra.Command{Use: "module", Short: "Make a module, or check what it declares"}
	cmd.AddCommand(newModuleNew(c), newModuleCheck(c), newModuleRun(c))
	return cmd
}

func newModuleNew(c *common) *cobra.Command {
	var title string
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Make a small module that works, to begin with",
		Long: `Make a small module that works, to begin with.

The folder modules/NAME gets a module.toml with comments and a page that it serves. A folder that is there is left as it is.`,
		Example: "  allot module new wiki --title \"Our wiki\"\n  allot module check --declaration modules/wiki",
		Args:    one("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			source, err := c.sourceFolder()
			if err != nil {
				return err
			}
			dir, err := newmodule.Make(string(source), args[0], title)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "made %s\n", dir)
			return nil
		},
	}
	cmd.Flags().StringVar(&title, "title", "", "what people call it (default: the name)")
	return cmd
}

func newModuleCheck(c *common) *cobra.Command {
	var with string
	var declaration bool
	cmd := &cobra.Command{
		Use:   "check DIR...",
		Short: "Check declarations, and compare trees with a normal installation of their packages",
		Long: `Check the declarations of modules, and compare their trees with a normal installation of their packages.

Maintainer scripts never run when an image is built: what they would have done is declared in module.toml. This command
installs the same packages in a throw-away folder with all their scripts, and lists every path that matters and that no
declaration covers. The packages are those of a profile's lock, or where it does not have the module's, those that Debian
has now. Exit status 1 when anything is wrong.`,
		Example: "  allot module check modules/page\n  allot module check --declaration modules/*",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return nil
			}
			return usage(cmd, errors.New("want at least one DIR"))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			specs, err := readModules(args)
			if err != nil || declaration {
				return err
			}
			return compareModules(cmd, c, specs, with)
		},
	}
	cmd.Flags().StringVar(&with, "profile", "garden-club", "profile whose lock is used")
	cmd.Flags().BoolVar(&declaration, "declaration", false, "check the declarations alone: needs no packages, takes no time")
	return cmd
}

// readModules reads the declarations of all modules, so that what is wrong with any of them is told at once.
func readModules(dirs []string) ([]*profile.ModuleSpec, error) {
	var specs []*profile.ModuleSpec
	var errs []error
	for _, dir := range dirs {
		spec, err := profile.ReadModule(dir)
		specs, errs = append(specs, spec), append(errs, err)
	}
	return specs, errors.Join(errs...)
}

// compareModules compares the trees of modules with normal installations, one after the other.
func compareModules(cmd *cobra.Command, c *common, specs []*profile.ModuleSpec, with string) error {
	p, err := c.open(with)
	if err != nil {
		return err
	}
	root, err := c.tools(cmd.Context(), p.cache, p.profile.Debian)
	if err != nil {
		return err
	}
	var errs []error
	for _, spec := range specs {
		errs = append(errs, compareModule(cmd.Context(), cmd.OutOrStdout(), c, p, spec, root))
	}
	return errors.Join(errs...)
}

func compareModule(ctx context.Context, out io.Writer, c *common, p *project, spec *profile.ModuleSpec, root *tools.Root) error {
	chain, locked, err := lockModule(ctx, c, p, spec)
	if err != nil {
		return err
	}
	report, done := c.progress()
	found, err := modulecheck.Check(ctx, modulecheck.Options{
		Trees: chain, Lock: locked, Tools: root, Fetcher: apt.New(p.cache, p.profile.Debian, locked.Epoch),
		Cache: p.cache, Progress: report,
	})
	done()
	if err != nil {
		return fmt.Errorf("cannot check module %q: %w", spec.Name, err)
	}
	if err := found.Write(out); err != nil {
		return err
	}
	return found.Err()
}

// lockModule returns the trees of a module, lowest first, and a lock that has their packages: the profile's if it knows
// the module as it is now, and otherwise one made of what Debian has today.
func lockModule(ctx context.Context, c *common, p *project, spec *profile.ModuleSpec) ([]*profile.Tree, *lock.Lock, error) {
	if p.profile.Trees[spec.Name] != nil && p.lock.Check(p.profile) == nil {
		chain, err := p.profile.Chain(&spec.Tree)
		return chain, p.lock, err
	}
	trees := map[string]*profile.Tree{}
	if spec.Tree.Base != "" {
		below, err := profile.ReadTrees(string(p.source), spec.Tree.Base)
		if err != nil {
			return nil, nil, err
		}
		trees = below
	}
	trees[spec.Name] = &spec.Tree
	chain, err := (&profile.Profile{Trees: trees}).Chain(&spec.Tree)
	if err != nil {
		return nil, nil, err
	}
	report, done := c.progress()
	defer done()
	locked, err := resolve.Lock(ctx, resolve.Options{
		Trees: trees, Archs: p.profile.Archs, Archive: apt.New(p.cache, p.profile.Debian, 0), Cache: p.cache,
		Now: time.Now(), Progress: report,
	})
	return chain, locked, err
}
