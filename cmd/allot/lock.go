package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"allotment/builder/apt"
	"allotment/builder/lock"
	"allotment/builder/lock/resolve"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
)

func newLock(c *common) *cobra.Command {
	var keep string
	var tools bool
	cmd := &cobra.Command{
		Use:   "lock PROFILE...",
		Short: "Resolve the packages of a profile and write its lock",
		Long: `Resolve the packages of a profile (main, updates and security of Debian 13) for every architecture it names, and write
the lock beside it. The archive's signatures are verified; the lock then names every package by version, size and SHA-256,
one on a line, so that the change can be read as a diff.

Debian's mirrors drop versions that are replaced. With --keep, every locked package, and every tool that a build
needs on this kind of host, is also kept in a folder, which the profile can name as debian.pool.`,
		Example: "  allot lock garden-club\n  git diff profiles/garden-club.lock",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && !tools {
				return fmt.Errorf("cannot lock nothing: name a profile, or use --tools")
			}
			if tools {
				if err := lockTools(cmd, c); err != nil {
					return err
				}
			}
			for _, arg := range args {
				if err := lockProfile(cmd, c, arg, keep); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&keep, "keep", "", "also keep every locked package in this folder")
	cmd.Flags().BoolVar(&tools, "tools", false, "renew the lock of the builder's own tools")
	return cmd
}

// lockProfile resolves a profile and writes its lock.
func lockProfile(cmd *cobra.Command, c *common, arg, keep string) error {
	source, dir, err := c.folders()
	if err != nil {
		return err
	}
	path := profilePath(source, arg)
	p, err := profile.Load(path)
	if err != nil {
		return err
	}
	report, done := c.progress()
	defer done()
	archive := apt.New(dir, p.Debian, 0)
	l, err := resolve.Lock(cmd.Context(), resolve.Options{
		Trees: p.Trees, Archs: p.Archs, Archive: archive, Cache: dir, Now: time.Now(), Progress: report,
	})
	if err != nil {
		return err
	}
	if keep != "" {
		var all []lock.Package
		for _, arch := range p.Archs {
			all = append(all, l.All(arch)...)
		}
		toolLock, err := tools.Lock()
		if err != nil {
			return err
		}
		all = append(all, toolLock.All(image.Arch(runtime.GOARCH))...) // so that the folder is enough for a build here
		if err := archive.Keep(cmd.Context(), all, keep, report); err != nil {
			return err
		}
	}
	return writeLock(cmd, l, lockPath(path))
}

// lockTools renews the lock of the tool root. Both kinds of build hosts get theirs.
func lockTools(cmd *cobra.Command, c *common) error {
	source, dir, err := c.folders()
	if err != nil {
		return err
	}
	trees, err := profile.ReadTrees(string(source), "tools", "solver", "check", "registry", "browser")
	if err != nil {
		return err
	}
	report, done := c.progress()
	defer done()
	l, err := resolve.Lock(cmd.Context(), resolve.Options{
		Trees: trees, Archs: []image.Arch{image.AMD64, image.ARM64}, Archive: apt.New(dir, profile.Debian{}, 0),
		Cache: dir, Now: time.Now(), Progress: report,
	})
	if err != nil {
		return err
	}
	return writeLock(cmd, l, filepath.Join(string(source), "builder", "tools", "tools.lock"))
}

func writeLock(cmd *cobra.Command, l *lock.Lock, path string) error {
	if err := l.Write(path); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n", path)
	return nil
}
