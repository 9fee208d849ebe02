package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"allotment/builder/tools"
	"allotment/image"
	"allotment/internal/run"
)

// firmwareFiles are the code and the empty variable store in the tool root; none for BIOS, which QEMU brings along.
func firmwareFiles(a image.Arch, f Firmware) (code, vars string) {
	switch {
	case f == BIOS:
		return "", ""
	case a == image.ARM64 && f == UEFISecure:
		return "/usr/share/AAVMF/AAVMF_CODE.secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"
	case a == image.ARM64:
		return "/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"
	case f == UEFISecure:
		return "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
	default:
		return "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
	}
}

// EmptyVars is the path of the firmware's empty variable store, to enrol keys into a copy of it.
func EmptyVars(t *tools.Root, a image.Arch) string {
	_, vars := firmwareFiles(a, UEFISecure)
	return hostPath(t, vars)
}

// prepare makes what the machine's folder lacks. What is there stays, so that a second start on the same folder is the
// next boot of the same machine.
func prepare(ctx context.Context, o Options) error {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	if _, vars := firmwareFiles(o.Arch, o.Firmware); vars != "" && missing(varsFile(o.Dir)) {
		from := o.Vars
		if from == "" {
			from = hostPath(o.Tools, vars)
		}
		if err := CopySparse(from, varsFile(o.Dir)); err != nil {
			return err
		}
	}
	if o.LogWrites != "" { // QEMU wants the file to exist
		if err := os.WriteFile(o.LogWrites, nil, 0o644); err != nil {
			return err
		}
	}
	if o.Disk == "" || !missing(overlayFile(o.Dir)) {
		return nil
	}
	return makeOverlay(ctx, o)
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func makeOverlay(ctx context.Context, o Options) error {
	base, err := filepath.Abs(o.Disk)
	if err != nil {
		return err
	}
	format, err := diskFormat(base)
	if err != nil {
		return err
	}
	args := []string{"create", "-q", "-f", "qcow2", "-F", format, "-b", base, overlayFile(o.Dir)}
	if o.DiskSize > 0 {
		args = append(args, strconv.FormatInt(o.DiskSize, 10))
	}
	return withFolders(o).Run(ctx, run.Command{Name: "qemu-img", Args: args})
}

// diskFormat is QEMU's name of the image's format, told from its first and last bytes.
func diskFormat(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot read disk image: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	var head, foot [8]byte
	if _, err := f.ReadAt(head[:], 0); err != nil && err != io.EOF {
		return "", fmt.Errorf("cannot read disk image %q: %w", path, err)
	}
	if info.Size() >= 512 {
		if _, err := f.ReadAt(foot[:], info.Size()-512); err != nil {
			return "", fmt.Errorf("cannot read disk image %q: %w", path, err)
		}
	}
	switch {
	case bytes.HasPrefix(head[:], []byte("QFI\xfb")):
		return "qcow2", nil
	case bytes.HasPrefix(head[:], []byte("KDMV")), bytes.HasPrefix(head[:], []byte("# Disk ")):
		return "vmdk", nil
	case bytes.HasPrefix(head[:], []byte("\x28\xb5\x2f\xfd")):
		return "", fmt.Errorf("cannot boot compressed image %q: unpack it first (zstd -d), or use the qcow2", path)
	case string(foot[:]) == "conectix":
		return "vpc", nil
	}
	return "raw", nil
}
