package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"allotment/builder/apt"
	"allotment/builder/modulecheck"
	"allotment/builder/profile"
)

func newModule(c *common) *cobra.Command {
	cmd := &cobra.Command{Use: "module", Short: "Check what a module declares"}
	cmd.AddCommand(newModuleCheck(c))
	return cmd
}

func newModuleCheck(c *common) *cobra.Command {
	var with string
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Compare a module's tree with a normal installation of its packages",
		Long: `Compare a module's tree with a normal installation of its packages.

Maintainer scripts never run when an image is built: what they would have done is declared in module.toml. This command
installs the same locked packages in a throw-away folder with all their scripts, and lists every path that matters and
that no declaration covers. Exit status 1 when there is one.`,
		Example: "  allot module check modules/page",
		Args:    one("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return checkModule(cmd, c, args[0], with)
		},
	}
	cmd.Flags().StringVar(&with, "profile", "garden-club", "profile whose lock has the module's packages")
	return cmd
}

func checkModule(cmd *cobra.Command, c *common, dir, with string) error {
	p, err := c.open(with)
	if err != nil {
		return err
	}
	spec, err := profile.ReadModule(dir)
	if err != nil {
		return err
	}
	if err := p.lock.Check(p.profile); err != nil {
		return err
	}
	trees, err := p.profile.Chain(&spec.Tree)
	if err != nil {
		return err
	}
	if len(p.lock.Trees[spec.Name]) == 0 {
		return fmt.Errorf("cannot check module %q: the lock of %q has no packages for it; add it to modules in %s and run: allot lock %s",
			filepath.Base(dir), with, p.profile.File, with)
	}
	root, err := c.tools(cmd.Context(), p.cache, p.profile.Debian)
	if err != nil {
		return err
	}
	report, done := c.progress()
	found, err := modulecheck.Check(cmd.Context(), modulecheck.Options{
		Trees: trees, Lock: p.lock, Tools: root, Fetcher: apt.New(p.cache, p.profile.Debian, p.lock.Epoch), Cache: p.cache, Progress: report,
	})
	done()
	if err != nil {
		return err
	}
	if err := found.Write(cmd.OutOrStdout()); err != nil {
		return err
	}
	return found.Err()
}
