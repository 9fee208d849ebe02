package slot

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"allotment/image"
	"allotment/image/disk/fat32"
	"allotment/image/esp"
	"allotment/image/secureboot"
	"allotment/image/uki"
)

// Place puts the boot files of version v, out of the UKI in the file at path, onto the ESP under names that no boot loader
// starts, and reads them back. One that is on trial is so no more. Boot files of versions that are not started are removed
// first. A file without a valid signature by the key that the machine trusts is refused, for firmware would refuse it too late.
// After an error nothing of v is left. Placing what is placed already changes nothing.
func (s *Store) Place(v image.Version, path string) error {
	if err := s.place(v, path); err != nil {
		return fmt.Errorf("cannot put the boot files of version %s onto the EFI system partition: %w", v, err)
	}
	return nil
}

func (s *Store) place(v image.Version, path string) error {
	started, err := s.Entries()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(started, func(e Entry) bool { return e.Version == v && !e.Trial }) {
		return errors.New("it is what the boot loader starts")
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := s.check(f, info.Size(), v); err != nil {
		return err
	}
	parts, err := s.parts(v, f, info.Size())
	if err != nil {
		return err
	}
	if err := s.Drop(v); err != nil { // what an earlier attempt left armed
		return err
	}
	if err := s.tidy(v); err != nil {
		return err
	}
	if err := s.write(parts, v); err != nil {
		return errors.Join(err, s.discard(v))
	}
	return nil
}

// stores are the lists of both boot loaders, as far as the architecture has them.
func (s *Store) stores() []func() ([]Entry, error) {
	if s.arch.BootsBIOS() {
		return []func() ([]Entry, error){s.ukiEntries, s.grubEntries}
	}
	return []func() ([]Entry, error){s.ukiEntries}
}

// check wants a UKI of version v that the machine's key has signed.
func (s *Store) check(r io.ReaderAt, size int64, v image.Version) error {
	cert, err := s.certificate()
	if err != nil {
		return err
	}
	if err := secureboot.VerifyPEFile(r, size, cert); err != nil {
		return fmt.Errorf("its UKI would not start: signature: %w", err)
	}
	release, err := uki.Section(r, ".osrel")
	if err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(release, maxText))
	if err != nil {
		return err
	}
	if got := uki.OSReleaseField(string(b), "IMAGE_VERSION"); got != string(v) {
		return fmt.Errorf("its UKI says that it is version %q", got)
	}
	return nil
}

// certificate is that of the key which signs what the machine starts, from the variables that lie on the ESP for enrolling.
func (s *Store) certificate() (*x509.Certificate, error) {
	var cert *x509.Certificate
	for _, v := range secureboot.Variables { // each signs the next
		auth, err := s.read(esp.AuthPath(v))
		if err != nil {
			return nil, err
		}
		if cert, err = secureboot.OpenVariable(v, auth, cert); err != nil {
			return nil, err
		}
	}
	return cert, nil
}

// part is a file to be written.
type part struct {
	path string
	size int64
	open func() io.Reader
	sum  [sha256.Size]byte
}

// parts are the boot files that follow from a UKI.
func (s *Store) parts(v image.Version, r io.ReaderAt, size int64) ([]part, error) {
	parts := []part{{path: esp.UKI{Version: v, Placed: true}.Path(), size: size, open: func() io.Reader {
		return io.NewSectionReader(r, 0, size)
	}}}
	if s.arch.BootsBIOS() {
		for _, from := range []struct{ section, name string }{{".linux", esp.Kernel}, {".initrd", esp.Initrd}} {
			section, err := uki.Section(r, from.section)
			if err != nil {
				return nil, err
			}
			parts = append(parts, part{path: esp.GRUBPath(v, from.name), size: section.Size(), open: func() io.Reader {
				return io.NewSectionReader(section, 0, section.Size())
			}})
		}
		section, err := uki.Section(r, ".cmdline")
		if err != nil {
			return nil, err
		}
		line, err := io.ReadAll(io.LimitReader(section, maxText))
		if err != nil {
			return nil, err
		}
		arguments, err := esp.ArgumentsFile(string(bytes.TrimRight(line, "\x00\n")))
		if err != nil {
			return nil, err
		}
		parts = append(parts, text(esp.GRUBPath(v, esp.Arguments), arguments))
	}
	for i := range parts {
		var err error
		if parts[i].sum, err = sum(parts[i].open()); err != nil {
			return nil, err
		}
	}
	if s.arch.BootsBIOS() {
		parts = append(parts, text(esp.GRUBPath(v, esp.Sums), esp.SumsFile(parts[1].sum, parts[2].sum, parts[3].sum)))
	}
	return parts, nil
}

func text(path string, b []byte) part {
	return part{path: path, size: int64(len(b)), open: func() io.Reader { return bytes.NewReader(b) }, sum: sha256.Sum256(b)}
}

func sum(r io.Reader) ([sha256.Size]byte, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return [sha256.Size]byte(h.Sum(nil)), err
}

// write writes the parts that are not there yet, or not as they shall be, after it made sure that all fit.
func (s *Store) write(parts []part, v image.Version) error {
	var missing []part
	need := int64(0)
	if s.arch.BootsBIOS() {
		need = fat32.ClusterSize // for the folder
	}
	for _, p := range parts {
		same, err := s.holds(p.path, p)
		switch {
		case same:
			continue
		case err == nil:
			err = s.ed.Remove(p.path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, p)
		need += (p.size + fat32.ClusterSize - 1) / fat32.ClusterSize * fat32.ClusterSize
	}
	if free := s.ed.Free(); need > free {
		return fmt.Errorf("%w: it lacks %d MiB", syscall.ENOSPC, (need-free)>>20+1)
	}
	if s.arch.BootsBIOS() {
		if err := s.ed.Mkdir(esp.VersionFolder(v)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, p := range missing {
		if err := s.ed.Create(p.path, p.size, p.open()); err != nil {
			return err
		}
		if same, err := s.holds(p.path, p); err != nil || !same {
			return errors.Join(fmt.Errorf("%s is not read back as it was written", p.path), err)
		}
	}
	return nil
}

// holds tells whether the file at path has the content of p.
func (s *Store) holds(path string, p part) (bool, error) {
	r, err := s.ed.Open(path)
	if err != nil || r.Size() != p.size {
		return false, err
	}
	got, err := sum(r)
	return got == p.sum, err
}

// tidy removes the boot files that no boot loader starts, but for those of version v.
func (s *Store) tidy(v image.Version) error {
	files, err := s.ukis()
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Placed && f.Version != v {
			if err := s.ed.Remove(f.Path()); err != nil {
				return err
			}
		}
	}
	if !s.arch.BootsBIOS() {
		return nil
	}
	started, err := s.grubEntries()
	if err != nil {
		return err
	}
	folders, err := s.ed.List(esp.GRUBFolder)
	if err != nil {
		return err
	}
	for _, item := range folders {
		w, err := image.ParseVersion(item.Name)
		if !item.Folder || err != nil || w == v || slices.ContainsFunc(started, func(e Entry) bool { return e.Version == w }) {
			continue
		}
		if err := s.removeFolder(w); err != nil {
			return err
		}
	}
	return nil
}

// removeFolder removes the files of a version for GRUB.
func (s *Store) removeFolder(v image.Version) error {
	items, err := s.ed.List(esp.VersionFolder(v))
	if err != nil {
		return err
	}
	for _, item := range items {
		if err := s.ed.Remove(esp.GRUBPath(v, item.Name)); err != nil {
			return err
		}
	}
	if err := s.ed.Remove(esp.VersionFolder(v)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// discard removes what was placed of a version.
func (s *Store) discard(v image.Version) error {
	err := s.ed.Remove(esp.UKI{Version: v, Placed: true}.Path())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if s.arch.BootsBIOS() {
		err = errors.Join(err, s.removeFolder(v))
	}
	return err
}
