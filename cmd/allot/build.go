package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"allotment/image"
)

func newBuild(c *common) *cobra.Command {
	var archs []string
	var keys, out string
	cmd := &cobra.Command{
		Use:   "build PROFILE",
		Short: "Build the images of a profile",
		Long: `Build the images of a profile from its lock.

PROFILE is the name of a file in profiles/, or a path. The images, their SHA-256 sums, the list of packages (SPDX) and
the build record lie in --out when the command ends with status 0; until then nothing has its final name.
Only packages that the lock names by hash are used. The same lock, keys, code and Go release give the same bytes.`,
		Example: "  allot build garden-club\n  allot build garden-club --arch arm64 --out /srv/images --keys /media/stick/keys",
		Args:    one("PROFILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := c.open(args[0])
			if err != nil {
				return err
			}
			wanted, err := parseArchs(archs, p.profile.Archs)
			if err != nil {
				return err
			}
			for _, arch := range wanted {
				r, err := c.build(cmd.Context(), p, arch, inSource(p, keys, "keys"), inSource(p, out, "out"))
				if err != nil {
					return err
				}
				fmt.Fprint(cmd.OutOrStdout(), r.Text())
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&archs, "arch", nil, "architectures, amd64 or arm64 (default: all of the profile)")
	addKeysFlag(cmd, &keys)
	cmd.Flags().StringVar(&out, "out", "", "folder for the images (default: out in the source folder)")
	return cmd
}

func addKeysFlag(cmd *cobra.Command, keys *string) {
	cmd.Flags().StringVar(keys, "keys", "", "folder of the signing keys (default: keys in the source folder)")
}

// inSource is path, or the folder name in the source folder where path is empty.
func inSource(p *project, path, name string) string {
	if path == "" {
		return filepath.Join(string(p.source), name)
	}
	return path
}

// parseArchs turns flags into architectures; none means all that the profile names.
func parseArchs(flags []string, all []image.Arch) ([]image.Arch, error) {
	if len(flags) == 0 {
		return all, nil
	}
	var archs []image.Arch
	for _, s := range flags {
		a, err := image.ParseArch(s)
		if err != nil {
			return nil, err
		}
		archs = append(archs, a)
	}
	return archs, nil
}
