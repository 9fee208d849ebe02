package slot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/image"
	"allotment/image/disk/fat32"
	"allotment/image/disk/fat32/cutdisk"
	"allotment/image/esp"
	"allotment/image/verity"
	"allotment/updater/attempt"
	"allotment/updater/gate"
	"allotment/updater/letter"
	"allotment/updater/snapshot"
)

var (
	from = attempt.System{Version: "1.0", RootHash: verity.RootHash{1}, Slot: image.SlotA}
	to   = attempt.System{Version: "2.0", RootHash: verity.RootHash{2}, Slot: image.SlotB}
)

// volume is what a volume of a module holds: who wrote its format, and how often members wrote to it.
type volume struct {
	format image.Version
	writes int
}

type data [2]volume

// box is all that outlasts a cut of the power: the ESP, the updater's folder, the volumes and their snapshots. Writes of
// members that were said to be kept are counted beside it.
type box struct {
	esp    *cutdisk.Disk
	update map[string]string // files of the updater's folder
	data   data
	copies map[string]data
	kept   int // times that members wrote
	taken  int // kept, when the snapshot was taken
}

func (b *box) clone() *box {
	c := *b
	c.esp, c.update, c.copies = b.esp.Copy(), maps.Clone(b.update), maps.Clone(b.copies)
	return &c
}

// world is a box that runs. It notes every box that a cut could leave.
type world struct {
	t       testing.TB
	machine machine
	folder  string // where the updater's folder lies while the box runs
	uki     []byte // of the new release
	plant   string // a fault that is planted; see the twins
	on      *box
	left    []*box // what a cut could have left since the last start
}

// cut notes what a cut at this moment leaves.
func (w *world) cut() {
	update := w.readUpdate()
	for _, disk := range w.on.esp.Found() {
		b := *w.on
		b.esp, b.update, b.copies = disk, update, maps.Clone(w.on.copies)
		w.left = append(w.left, &b)
	}
}

// tap notes what a cut leaves before each sync: of what was written since the last one, any part.
type tap struct {
	*cutdisk.Disk
	w *world
}

func (d tap) Sync() error {
	d.w.cut()
	return d.Disk.Sync()
}

func (w *world) readUpdate() map[string]string {
	files := map[string]string{}
	err := filepath.WalkDir(w.folder, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, w.folder+"/")] = string(b)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return files
}

func (w *world) writeUpdate(files map[string]string) {
	if err := os.RemoveAll(w.folder); err != nil {
		w.t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(w.folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// start lets the boot loader start what it would, counting, and returns the release; the box runs then.
func (w *world) start(b *box) (attempt.System, error) {
	w.on, w.left = b.clone(), nil
	w.writeUpdate(b.update)
	s := w.machine.raw(w.t, w.on.esp)
	if w.machine.uefi {
		return w.startUEFI(s)
	}
	return w.startBIOS(s)
}

// startUEFI is systemd-boot: the first name, counted by a rename in firmware. EDK II takes the old name out before it adds
// the new one behind it, so that a cut leaves either name or none. Where the new name exists, nothing is counted.
func (w *world) startUEFI(ed *fat32.Editor) (attempt.System, error) {
	files, err := (&Store{ed: ed}).ukis()
	if err != nil {
		return attempt.System{}, err
	}
	if len(files) == 0 || files[0].Placed {
		return attempt.System{}, errors.New("the boot loader has nothing to start")
	}
	f := files[0]
	path := f.Path()
	if f.Counted && f.Left > 0 && w.plant != "count nothing" {
		next := f.UKI
		next.Left, next.Done = f.Left-1, f.Done+1
		w.torn(f.UKI)
		switch err := ed.Rename(f.Path(), next.Name()); {
		case err == nil:
			path = next.Path()
		case !errors.Is(err, fs.ErrExist):
			return attempt.System{}, err
		}
	}
	return w.release(f.Version, path, ed)
}

// torn notes a box on which the file of a UKI has the given names.
func (w *world) torn(u esp.UKI, names ...esp.UKI) {
	b := w.on.clone()
	b.update = w.readUpdate()
	var all []string
	for _, n := range names {
		all = append(all, n.Name())
	}
	relink(w.t, w.machine, b.esp, u, all)
	w.left = append(w.left, b)
}

// startBIOS follows esp.GRUBConfig.
func (w *world) startBIOS(ed *fat32.Editor) (attempt.System, error) {
	s := &Store{ed: ed}
	e, err := s.environment()
	if err != nil {
		return attempt.System{}, err
	}
	candidates := []image.Version{e.Version, e.Previous}
	if e.Trial != "" && e.Tries > 0 {
		if w.plant != "count nothing" {
			e.Tries--
		}
		if err := s.ed.WriteSector(esp.EnvironmentPath, 0, e.Sector()); err != nil {
			return attempt.System{}, err
		}
		candidates = slices.Insert(candidates, 0, e.Trial)
	}
	for _, v := range candidates {
		if v != "" && s.checkSums(v) == nil {
			return w.release(v, "", ed)
		}
	}
	return attempt.System{}, errors.New("GRUB finds no whole release")
}

// release is what was started, which must be whole.
func (w *world) release(v image.Version, path string, ed *fat32.Editor) (attempt.System, error) {
	if v == from.Version {
		return from, nil
	}
	if path != "" {
		r, err := ed.Open(path)
		if err != nil {
			return to, err
		}
		if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, w.uki) {
			return to, fmt.Errorf("a damaged UKI is started: %w", err)
		}
	}
	return to, nil
}

// gate is the real gate, on the box that runs.
func (w *world) gate(running attempt.System) *gate.Gate {
	return gate.New(gate.Config{
		Dir: w.folder, Running: running, Counted: running == to,
		Loader:    func() (gate.Loader, error) { return w.loader() },
		Snapshots: snapshots{w},
		Names:     func() letter.Names { return letter.Names{} },
		Now:       func() time.Time { w.cut(); return now },
		Log:       slog.New(slog.DiscardHandler),
	})
}

// loader is the real store, in the words of the gate.
type loader struct {
	*Store
	w *world
}

func (w *world) loader() (gate.Loader, error) {
	s, err := New(tap{w.on.esp, w}, fat32.MinSize, w.machine.arch, w.machine.uefi, now, slog.New(slog.DiscardHandler))
	return loader{s, w}, err
}

func (l loader) Entries() ([]attempt.Entry, error) {
	entries, err := l.Store.Entries()
	var out []attempt.Entry
	for _, e := range entries {
		out = append(out, attempt.Entry(e))
	}
	return out, err
}

func (l loader) Drop(v image.Version) error {
	if l.w.plant == "drop nothing" {
		return nil
	}
	l.both(v, esp.UKI{Version: v, Placed: true})
	return l.Store.Drop(v)
}

func (l loader) Commit(v image.Version, uki string) error {
	l.both(v, esp.UKI{Version: v})
	return l.Store.Commit(v, uki)
}

// both notes what a cut leaves of a rename whose names lie in two sectors, as firmware may put them: both names.
func (l loader) both(v image.Version, renamed esp.UKI) {
	files, err := l.ofVersion(v)
	if err != nil {
		l.w.t.Fatal(err)
	}
	if len(files) == 1 && files[0].UKI != renamed {
		l.w.torn(files[0].UKI, files[0].UKI, renamed)
	}
}

// snapshots are kept volume by volume, as package snapshot does, and counted as whole by a mark.
type snapshots struct{ w *world }

func (s snapshots) Take(name string) error {
	if s.w.plant == "keep the first snapshot" && s.Exists(name) {
		return nil
	}
	delete(s.w.on.copies, name)
	s.w.cut()
	if !strings.HasPrefix(s.w.plant, "take ") {
		s.w.on.copies[name], s.w.on.taken = s.w.on.data, s.w.on.kept
	}
	s.w.cut()
	return nil
}

func (s snapshots) Restore(name string) error {
	c, ok := s.w.on.copies[name]
	if !ok {
		return errors.New("there is no such snapshot")
	}
	for i := range c {
		if s.w.plant == "restore nothing" {
			break
		}
		s.w.on.data[i] = c[i]
		s.w.cut()
	}
	return nil
}

func (s snapshots) Remove(name string) error {
	delete(s.w.on.copies, name)
	s.w.cut()
	return nil
}

func (s snapshots) Exists(name string) bool                   { _, ok := s.w.on.copies[name]; return ok }
func (s snapshots) List() ([]string, error)                   { return slices.Sorted(maps.Keys(s.w.on.copies)), nil }
func (s snapshots) Changes(string) ([]snapshot.Change, error) { return nil, nil }

// key says what matters of a box, for telling whether it was seen: names and health of boot files, the record without its
// times, data and snapshots.
func (w *world) key(b *box) string {
	var out strings.Builder
	ed := w.machine.raw(w.t, b.esp)
	files, err := (&Store{ed: ed}).ukis()
	first := map[uint32]string{}
	for _, f := range files {
		if _, ok := first[f.item.Cluster]; !ok {
			first[f.item.Cluster] = f.Name()
		}
		r, err := ed.Open(f.Path())
		whole := err == nil && r.Size() == int64(len(w.uki))
		fmt.Fprintln(&out, f.Name(), first[f.item.Cluster], whole)
	}
	fmt.Fprintln(&out, err)
	if w.machine.arch.BootsBIOS() {
		s := &Store{ed: ed}
		e, err := s.environment()
		fmt.Fprintln(&out, e, err, s.checkSums("1.0"), s.checkSums("2.0"))
	}
	var a attempt.Attempt
	if err := json.Unmarshal([]byte(b.update["attempt.json"]), &a); err != nil {
		w.t.Fatal(err)
	}
	fmt.Fprintln(&out, a.Stage, a.Starts, a.Untried, a.Forwards, a.ByHand, b.update["bad.json"] != "")
	fmt.Fprintln(&out, b.data, b.copies, b.kept, b.taken)
	return out.String()
}

// relink gives the file of a UKI all of the names, and no other.
func relink(t testing.TB, m machine, d *cutdisk.Disk, u esp.UKI, names []string) {
	t.Helper()
	ed := m.raw(t, d)
	for i, name := range names {
		if name == u.Name() {
			continue
		}
		if err := ed.Create(esp.UKIFolder+"/"+name, int64(i)+1, strings.NewReader("xxx")); err != nil {
			t.Fatal(err)
		}
	}
	items, err := ed.List(esp.UKIFolder)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]fat32.Item{}
	for _, item := range items {
		found[item.Name] = item
	}
	for _, name := range names {
		repoint(t, d, found[name].Cluster, found[u.Name()])
	}
	if !slices.Contains(names, u.Name()) {
		if err := m.raw(t, d).Remove(u.Path()); err != nil {
			t.Fatal(err)
		}
	}
}
