// Package erofs makes EROFS images, the read-only file system of the root and of every layer, with mkfs.erofs from
// erofs-utils 1.8 or newer.
package erofs

import (
	"context"
	"fmt"
	"os"
	"time"

	"allotment/internal/run"
)

// BlockSize is the block size of our images in bytes; their size is a multiple of it.
const BlockSize = 4096

// Options are what makes an image this image. The same tar file and options give the same bytes.
type Options struct {
	UUID  string    // of the file system, as 8-4-4-4-12 hexadecimal digits
	Epoch time.Time // time of the image and of every file in it, whole seconds
	Label string    // volume name, at most 15 bytes; may be empty
}

// Make turns the tar file tarPath into the EROFS image outPath. Files are not compressed: deltas between releases are
// made of their bytes, and the state partition compresses what it stores.
//
// Hard links, extended attributes (so file capabilities too), owners and modes are those of the tar file, whose root
// folder must be its first member.
func Make(ctx context.Context, r run.Runner, tarPath, outPath string, o Options) error {
	args := []string{"--quiet", "--tar=f", "-b", fmt.Sprint(BlockSize), "-T", fmt.Sprint(o.Epoch.Unix()), "-U", o.UUID}
	if o.Label != "" {
		args = append(args, "-L", o.Label)
	}
	err := r.Run(ctx, run.Command{Name: "mkfs.erofs", Args: append(args, outPath, tarPath)})
	if err != nil {
		return fmt.Errorf("cannot make EROFS image %q: %w", outPath, err)
	}
	st, err := os.Stat(outPath)
	if err != nil {
		return err
	}
	if st.Size()%BlockSize != 0 { // dm-verity and the store count in blocks
		return fmt.Errorf("cannot use EROFS image %q: its %d bytes are not whole blocks", outPath, st.Size())
	}
	return nil
}
