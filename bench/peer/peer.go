// Package peer builds what Allotment is measured against: a Debian 13 with systemd, made by mmdebstrap.
package peer

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"allotment/builder/tools"
	"allotment/internal/run"
)

//go:embed peer.sh
var script string

// The archives that it is installed from; ours come from the same by default.
const (
	mirror         = "http://deb.debian.org/debian"
	securityMirror = "http://deb.debian.org/debian-security"
)

// Options say what the peer is.
type Options struct {
	Tools      *tools.Root
	Dir        string   // folder for the result, and for what is made on the way; in the folder for temporary files
	FileSystem string   // ext4 or btrfs
	Packages   []string // besides those that every server needs
}

// Build installs the peer, and on top of it the files in the folder "files" below Options.Dir. It returns the path of the raw
// disk image.
func Build(ctx context.Context, o Options) (string, error) {
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("cannot build the Debian to compare with: mmdebstrap needs root")
	}
	err := o.Tools.With("/dev", "/sys").Run(ctx, run.Command{
		Name:  "sh",
		Args:  []string{"-s", o.Dir, o.FileSystem, strings.Join(o.Packages, ","), mirror, securityMirror},
		Stdin: strings.NewReader(script)})
	return filepath.Join(o.Dir, "peer.raw"), err
}
