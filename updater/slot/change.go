package slot

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"allotment/image"
	"allotment/image/esp"
)

// ErrLast says that a release is the only one that the boot loader has.
var ErrLast = errors.New("there is no other release to start")

// Arm makes the placed version v the next that is started, esp.MaxTries times at most. Nobody can use the box while it does, so
// it reads no file: only what Place has verified just before may be armed.
func (s *Store) Arm(v image.Version) error {
	if err := s.each(func() error { return s.armUKI(v) }, func() error { return s.armGRUB(v) }); err != nil {
		return fmt.Errorf("cannot arm version %s: %w", v, err)
	}
	return nil
}

// Commit makes version v what is started from now on, uncounted, with the release of before next in line. What is missing or
// damaged of its boot files comes from the UKI in the file at path, if that is there.
func (s *Store) Commit(v image.Version, path string) error {
	if err := s.commit(v, path); err != nil {
		return fmt.Errorf("cannot commit version %s: %w", v, err)
	}
	return nil
}

// Drop takes version v from what is started. Its files stay where the next Place finds or removes them. Of what remains the
// first is uncounted. Dropping a version that is not there changes nothing.
func (s *Store) Drop(v image.Version) error {
	err := s.each(func() error { return s.dropUKI(v) }, func() error { return s.dropGRUB(v) })
	if err != nil {
		return fmt.Errorf("cannot drop version %s: %w", v, err)
	}
	return nil
}

// Versions lists what either boot loader could start.
func (s *Store) Versions() ([]image.Version, error) {
	var out []image.Version
	for _, entries := range s.stores() {
		list, err := entries()
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if !slices.Contains(out, e.Version) {
				out = append(out, e.Version)
			}
		}
	}
	return out, nil
}

// each makes a change for both boot loaders, last for the one in use: when that one has it, both do. That the other cannot
// have it is no reason to stop.
func (s *Store) each(uki, grub func() error) error {
	other, use := uki, grub
	if s.uefi {
		other, use = grub, uki
	}
	if s.arch.BootsBIOS() {
		if err := other(); err != nil {
			s.log.Warn("the boot loader that is not in use does not follow", "error", err)
		}
	}
	return use()
}

// ofVersion lists the UKIs of a version.
func (s *Store) ofVersion(v image.Version) ([]file, error) {
	files, err := s.ukis()
	return slices.DeleteFunc(files, func(f file) bool { return f.Version != v }), err
}

// rename gives a UKI another name, in place of a file that has it.
func (s *Store) rename(f file, to esp.UKI) error {
	if f.UKI == to {
		return nil
	}
	if err := s.ed.Remove(to.Path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.ed.Rename(f.Path(), to.Name())
}

func (s *Store) armUKI(v image.Version) error {
	files, err := s.ofVersion(v)
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return fmt.Errorf("it has %d UKIs, want one that is placed", len(files))
	}
	if !files[0].Placed && !files[0].Counted {
		return errors.New("it is committed already")
	}
	return s.rename(files[0], esp.UKI{Version: v, Counted: true, Left: esp.MaxTries})
}

func (s *Store) armGRUB(v image.Version) error {
	e, err := s.environment()
	if err != nil {
		return err
	}
	if e.Version == v || e.Previous == v {
		return errors.New("it is committed already")
	}
	if _, err := s.read(esp.GRUBPath(v, esp.Sums)); err != nil { // which Place writes last
		return err
	}
	e.Trial, e.Tries = v, esp.MaxTries
	return s.setEnvironment(e)
}

// checkSums compares a version's files for GRUB with their sums, as GRUB will.
func (s *Store) checkSums(v image.Version) error {
	var sums [3][sha256.Size]byte
	for i, name := range []string{esp.Kernel, esp.Initrd, esp.Arguments} {
		r, err := s.ed.Open(esp.GRUBPath(v, name))
		if err != nil {
			return err
		}
		if sums[i], err = sum(r); err != nil {
			return err
		}
	}
	got, err := s.read(esp.GRUBPath(v, esp.Sums))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, esp.SumsFile(sums[0], sums[1], sums[2])) {
		return fmt.Errorf("%s does not fit the files", esp.GRUBPath(v, esp.Sums))
	}
	return nil
}

func (s *Store) commit(v image.Version, path string) error {
	var parts []part
	f, err := os.Open(path)
	switch {
	case err == nil:
		defer f.Close()
		info, err := f.Stat()
		if err == nil {
			err = s.check(f, info.Size(), v)
		}
		if err == nil {
			parts, err = s.parts(v, f, info.Size())
		}
		if err != nil {
			s.log.Warn("boot loader: the copy of the UKI cannot be used", "path", path, "error", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return s.each(func() error { return s.commitUKI(v, parts) }, func() error { return s.commitGRUB(v, parts) })
}

func (s *Store) commitUKI(v image.Version, parts []part) error {
	files, err := s.ofVersion(v)
	if err != nil {
		return err
	}
	good := slices.IndexFunc(files, func(f file) bool { return s.good(f, parts) })
	if good < 0 {
		if len(parts) == 0 {
			return errors.New("its UKI is missing or damaged, and so is the copy")
		}
		if err := s.write(parts[:1], v); err != nil {
			return err
		}
		files, good = append(files, file{UKI: esp.UKI{Version: v, Placed: true}}), len(files)
	}
	if err := s.rename(files[good], esp.UKI{Version: v}); err != nil {
		return err
	}
	return s.leadUKI(v)
}

// good tells whether a UKI on the ESP is what it shall be; without parts to compare with, whether its signature is good.
func (s *Store) good(f file, parts []part) bool {
	if len(parts) > 0 {
		same, err := s.holds(f.Path(), parts[0])
		return same && err == nil
	}
	r, err := s.ed.Open(f.Path())
	return err == nil && s.check(r, r.Size(), f.Version) == nil
}

// leadUKI makes the committed version the first: other files of it go, and what systemd-boot would start before it.
func (s *Store) leadUKI(v image.Version) error {
	files, err := s.ukis()
	if err != nil {
		return err
	}
	lead := slices.IndexFunc(files, func(f file) bool { return f.UKI == esp.UKI{Version: v} })
	for i, f := range files {
		switch {
		case f.Version == v && i != lead:
			err = s.ed.Remove(f.Path())
		case i < lead || f.Counted:
			err = s.rename(f, esp.UKI{Version: f.Version, Placed: true})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) commitGRUB(v image.Version, parts []part) error {
	if len(parts) > 0 {
		if err := s.write(parts[1:], v); err != nil {
			return err
		}
	}
	if err := s.checkSums(v); err != nil {
		return err
	}
	e, err := s.environment()
	if err != nil {
		s.log.Warn("boot loader: GRUB's environment is made anew", "error", err)
	}
	if e.Version != v {
		e.Version, e.Previous = v, e.Version
	}
	e.Trial, e.Tries = "", 0
	return s.setEnvironment(e)
}

func (s *Store) dropUKI(v image.Version) error {
	files, err := s.ukis()
	if err != nil {
		return err
	}
	others := slices.IndexFunc(files, func(f file) bool { return !f.Placed && f.Version != v })
	for _, f := range files {
		if f.Version != v || f.Placed {
			continue
		}
		if others < 0 {
			return ErrLast
		}
		if err := s.rename(f, esp.UKI{Version: v, Placed: true}); err != nil {
			return err
		}
	}
	if others >= 0 && files[others].Counted {
		return s.rename(files[others], esp.UKI{Version: files[others].Version})
	}
	return nil
}

func (s *Store) dropGRUB(v image.Version) error {
	e, err := s.environment()
	if err != nil {
		return err
	}
	if e.Trial == v {
		e.Trial, e.Tries = "", 0
	}
	if e.Version == v {
		if e.Previous == "" {
			return ErrLast
		}
		e.Version, e.Previous = e.Previous, ""
	}
	if e.Previous == v {
		e.Previous = ""
	}
	return s.setEnvironment(e)
}
