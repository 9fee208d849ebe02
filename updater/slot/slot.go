// Package slot is what the boot loaders know: which releases they start, which of them is on trial, and how many starts that
// has left. UEFI machines have it in the names of unified kernel images, where systemd-boot counts; BIOS machines in GRUB's
// environment block. On amd64 both are kept in step, so that a disk can move between such machines.
//
// The EFI system partition is not mounted: its files are changed by package fat32, whose every change is made visible by
// the write of one sector. So an entry is always there under one name, and whole. See docs/formats/esp.md.
package slot

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"allotment/image"
	"allotment/image/disk/fat32"
	"allotment/image/esp"
)

// Entry is a release that a boot loader can start.
type Entry struct {
	Version image.Version
	Trial   bool // its starts are counted
	Left    int  // starts left, of one on trial
	Done    int  // starts used up, of one on trial
}

// Config says where the boot loaders' files are.
type Config struct {
	Disk  string // the disk that root, ESP and state are on, such as /dev/vda
	Arch  image.Arch
	Mount string       // of no meaning: the ESP is not mounted
	Log   *slog.Logger // is told what was repaired
}

// Store is the EFI system partition, open for changes. One process at a time can have it.
type Store struct {
	ed    *fat32.Editor
	arch  image.Arch
	uefi  bool // systemd-boot is in use, not GRUB
	log   *slog.Logger
	close func() error
}

// Open finds the ESP of the disk by its name and repairs what a cut left. The machine's firmware decides which boot loader is
// the one in use.
func Open(c Config) (*Store, error) {
	d, size, err := openDevice("/sys/class/block", c.Disk)
	if err != nil {
		return nil, fmt.Errorf("cannot open the EFI system partition: %w", err)
	}
	_, err = os.Stat("/sys/firmware/efi")
	s, err := New(d, size, c.Arch, err == nil, time.Now(), c.Log)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	s.close = d.Close
	return s, nil
}

// New opens the ESP of size bytes on a device. UEFI tells which boot loader is in use; new files bear the time now.
func New(d fat32.Device, size int64, arch image.Arch, uefi bool, now time.Time, log *slog.Logger) (*Store, error) {
	ed, err := fat32.Edit(d, size, now)
	if err != nil {
		return nil, fmt.Errorf("cannot open the EFI system partition: %w", err)
	}
	s := &Store{ed: ed, arch: arch, uefi: uefi || !arch.BootsBIOS(), log: log, close: func() error { return nil }}
	if err := s.repair(); err != nil {
		return nil, fmt.Errorf("cannot repair the EFI system partition: %w", err)
	}
	return s, nil
}

// Close gives the partition back.
func (s *Store) Close() error { return s.close() }

// Entries lists what the boot loader in use chooses from, first choice first.
func (s *Store) Entries() ([]Entry, error) {
	if s.uefi {
		return s.ukiEntries()
	}
	return s.grubEntries()
}

// file is a unified kernel image on the ESP.
type file struct {
	esp.UKI
	item fat32.Item
}

// ukis lists the unified kernel images of all versions.
func (s *Store) ukis() ([]file, error) {
	items, err := s.ed.List(esp.UKIFolder)
	if err != nil {
		return nil, err
	}
	var files []file
	for _, item := range items {
		if u, ok := esp.ParseUKI(item.Name); ok && !item.Folder {
			files = append(files, file{u, item})
		}
	}
	slices.SortStableFunc(files, bySystemdBoot)
	return files, nil
}

// bySystemdBoot orders as systemd-boot does (systemd-boot(7), "Boot counting"; boot.c, boot_entry_compare): those without
// tries left last, then by version, newest first. The file that it does not see, and the one that it trusts less, come last.
func bySystemdBoot(a, b file) int {
	return cmp.Or(
		cmp.Compare(rank(a.Placed), rank(b.Placed)),
		cmp.Compare(rank(a.Counted && a.Left == 0), rank(b.Counted && b.Left == 0)),
		b.Version.Compare(a.Version),
		cmp.Compare(trust(b.UKI), trust(a.UKI)),
	)
}

func rank(last bool) int {
	if last {
		return 1
	}
	return 0
}

// trust orders the names that one file may have by how far they let systemd-boot go.
func trust(u esp.UKI) int {
	switch {
	case u.Placed:
		return -1
	case u.Counted:
		return u.Left
	}
	return 1 << 20
}

func (s *Store) ukiEntries() ([]Entry, error) {
	files, err := s.ukis()
	var out []Entry
	for _, f := range files {
		if !f.Placed {
			out = append(out, Entry{f.Version, f.Counted, f.Left, f.Done})
		}
	}
	return out, err
}

// grubEntries follows esp.GRUBConfig.
func (s *Store) grubEntries() ([]Entry, error) {
	e, err := s.environment()
	if err != nil {
		return nil, err
	}
	out := []Entry{{Version: e.Version}}
	if e.Previous != "" {
		out = append(out, Entry{Version: e.Previous})
	}
	if e.Trial == "" {
		return out, nil
	}
	trial := Entry{e.Trial, true, e.Tries, esp.MaxTries - e.Tries}
	if e.Tries == 0 {
		return append(out, trial), nil
	}
	return slices.Insert(out, 0, trial), nil
}

// environment is what GRUB reads: where the first block is damaged, the second.
func (s *Store) environment() (esp.Environment, error) {
	var errs []error
	for _, path := range []string{esp.EnvironmentPath, esp.CommittedPath} {
		b, err := s.read(path)
		if err == nil {
			var e esp.Environment
			if e, err = esp.ParseEnvironment(b); err == nil {
				return e, nil
			}
		}
		errs = append(errs, err)
	}
	return esp.Environment{}, errors.Join(errs...)
}

// setEnvironment writes what GRUB reads, as one sector. The second block follows, with nothing on trial.
func (s *Store) setEnvironment(e esp.Environment) error {
	if err := s.writeEnvironment(esp.EnvironmentPath, e); err != nil {
		return err
	}
	e.Trial, e.Tries = "", 0
	return s.writeEnvironment(esp.CommittedPath, e)
}

func (s *Store) writeEnvironment(path string, e esp.Environment) error {
	old, err := s.read(path)
	b := e.Marshal()
	switch {
	case err == nil && string(old) == string(b):
		return nil
	case err == nil && len(old) == len(b):
		return s.ed.WriteSector(path, 0, e.Sector())
	case !errors.Is(err, fs.ErrNotExist):
		err = s.ed.Remove(path) // of another size, or with a broken chain: of no use to GRUB as it is
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.ed.Create(path, int64(len(b)), strings.NewReader(string(b)))
}

// maxText bounds the text files on the ESP, in bytes.
const maxText = 1 << 20

// read returns the content of a small file.
func (s *Store) read(path string) ([]byte, error) {
	r, err := s.ed.Open(path)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxText))
}

// repair brings the folder of unified kernel images back to one name for each file. Firmware renames files when systemd-boot
// counts, and a cut then can leave both names, or one of which only the short form is left. Of two names the one stays that
// systemd-boot trusts less: the record decides whether that is enough.
func (s *Store) repair() error {
	items, err := s.ed.List(esp.UKIFolder)
	if err != nil {
		return err
	}
	files, err := s.ukis()
	if err != nil {
		return err
	}
	for _, item := range items {
		_, ours := esp.ParseUKI(item.Name)
		startable := strings.HasSuffix(strings.ToLower(item.Name), ".efi")
		others := slices.ContainsFunc(files, func(f file) bool { return !f.Placed })
		if !ours && startable && others && !item.Folder {
			s.log.Warn("boot loader: a name that a cut left is removed", "name", item.Name)
			if err := s.ed.Remove(esp.UKIFolder + "/" + item.Name); err != nil {
				return err
			}
		}
	}
	for i, f := range files {
		twin := slices.ContainsFunc(files[i+1:], func(g file) bool { return g.item.Cluster == f.item.Cluster && f.item.Size > 0 })
		if twin { // which is trusted less, for it comes later
			s.log.Warn("boot loader: a second name that a cut left is removed", "name", f.Name())
			if err := s.ed.Remove(f.Path()); err != nil {
				return err
			}
		}
	}
	return nil
}
