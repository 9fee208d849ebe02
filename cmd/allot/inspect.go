package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"allotment/builder/profile"
	"allotment/image/disk"
	"allotment/image/secureboot"
	"allotment/image/validate"
)

func newInspect(c *common) *cobra.Command {
	var asJSON bool
	var cert string
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Show what a finished image holds, and judge it",
		Long: `Show what a finished image holds (raw, raw.zst, qcow2, vmdk or vhd): its layout, versions and digests; and check every
invariant that an image must keep. All breaches are listed at once, and the exit status is then 1.`,
		Example: "  allot inspect out/allotment-garden-club-0.1.0-amd64.raw.zst --cert keys/db.crt",
		Args:    one("IMAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return inspect(cmd, c, args[0], cert, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	cmd.Flags().StringVar(&cert, "cert", "", "db certificate that must have signed the boot files, such as keys/db.crt")
	return cmd
}

func inspect(cmd *cobra.Command, c *common, path, certFile string, asJSON bool) error {
	var opts validate.Options
	var err error
	if certFile != "" {
		if opts.Cert, err = secureboot.LoadCertificate(certFile); err != nil {
			return err
		}
	}
	img, err := c.openImage(cmd.Context(), path)
	if err != nil {
		return err
	}
	defer img.Close()
	report, breaches := validate.Image(img, img.Size, opts)
	if len(report.Partitions) == 0 {
		return fmt.Errorf("cannot inspect %q: it holds no disk of ours\n  read as %s: %w", path, img.Format, breaches)
	}
	if asJSON {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(report)
	} else {
		err = report.Print(cmd.OutOrStdout())
	}
	if err == nil && breaches != nil {
		err = fmt.Errorf("cannot accept %s: it breaks %d invariants", filepath.Base(path), len(report.Breaches))
	}
	return err
}

// openImage opens an image of any format; those that only qemu-img reads take the tool root.
func (c *common) openImage(ctx context.Context, path string) (*disk.File, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	format, err := disk.Detect(path)
	if err != nil {
		return nil, err
	}
	if !format.NeedsTools() {
		return disk.Open(ctx, nil, path)
	}
	dir, err := c.cacheFolder()
	if err != nil {
		return nil, err
	}
	root, err := c.tools(ctx, dir, profile.Debian{})
	if err != nil {
		return nil, err
	}
	return disk.Open(ctx, root.With(filepath.Dir(path)), path)
}
