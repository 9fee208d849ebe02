package qemutests

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/image"
	"allotment/image/disk"
	"allotment/image/disk/fat32"
	"allotment/qemu-tests/vm"
	"allotment/updater/attempt"
	"allotment/updater/slot"
)

// TestPowerCutsInAnUpdate records what a box writes through an update that stays, takes the power away at some moments, and
// looks at the disks that are left; one of them is booted.
func TestPowerCutsInAnUpdate(t *testing.T) {
	r := recordUpdates(t, false)
	r.cut(t, 12, 1)
}

// TestManyPowerCutsInUpdates does so through one that stays and one that is undone, and boots some of the disks.
func TestManyPowerCutsInUpdates(t *testing.T) {
	full(t)
	r := recordUpdates(t, true)
	r.cut(t, 50, 8)
}

// updates is the recording of a box that was updated.
type updates struct {
	*club
	p        *publisher
	log      *vm.WriteLog
	disk     string // the image that the box began with, raw
	parts    map[string]disk.Partition
	phases   []phase
	releases []known
}

// phase is a part of the recording, from a flush to another.
type phase struct {
	name     string
	from, to int
}

// known is what a version must be where it can be started.
type known struct {
	version   image.Version
	uki, root image.Part
}

// recordUpdates boots the first release, lets members write, and updates it; with undone, another release then fails.
func recordUpdates(t *testing.T, undone bool) *updates {
	t.Helper()
	r := &updates{p: newPublisher(t, image.AMD64, "directory", "calendar")}
	r.unpackFirst(t)
	file := filepath.Join(t.TempDir(), "writes.log")
	r.club = r.p.install(t, vm.Options{Arch: image.AMD64, Firmware: vm.BIOS, LogWrites: file})
	fillClub(t, r.club)
	log, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	r.update(t, log, "good", r.p.publish(t, goodVersion, withNewFormat), `UPDATE-OK `)
	if undone {
		r.update(t, log, "broken", r.p.publish(t, brokenVersion, withBrokenCalendar), `UPDATE-UNDONE `)
		r.mark(t, log, "restore", func(from *int) { r.await(t, from, `BOOT-OK .*trial=no`) })
	}
	if err := r.PowerDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.log, err = vm.ReadWriteLog(log); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d flushes: %v", r.log.Flushes(), r.phases)
	return r
}

// update records an update in phases: until the box is about to restart, until the release is armed, and until the verdict.
func (r *updates) update(t *testing.T, log io.ReaderAt, name string, release *image.Release, outcome string) {
	t.Helper()
	r.releases = append(r.releases, known{release.Version, release.UKI, release.Root})
	r.deferUpdates(t)
	r.mark(t, log, name+" fetch and stage", func(*int) {
		r.ask(t, r.p, r.API().CheckUpdate)
		r.awaitUpdate(t, "ready")
	})
	var seen int
	r.mark(t, log, name+" arm", func(from *int) {
		if err := r.API().UpdateNow(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.mustSay(t, from, updateArmed)
		seen = *from
	})
	r.mark(t, log, name+" trial", func(*int) { r.await(t, &seen, outcome) })
}

// mark records a phase, which do waits for the end of.
func (r *updates) mark(t *testing.T, log io.ReaderAt, name string, do func(from *int)) {
	t.Helper()
	flushes := func() int {
		l, err := vm.ReadWriteLog(log)
		if err != nil {
			t.Fatal(err)
		}
		return l.Flushes()
	}
	ph, seen := phase{name: name, from: flushes()}, len(r.Events())
	do(&seen)
	ph.to = flushes()
	r.phases = append(r.phases, ph)
}

// unpackFirst makes a raw disk of the image that the box begins with.
func (r *updates) unpackFirst(t *testing.T) {
	t.Helper()
	path := r.p.build(t, firstVersion, nil)
	f, err := disk.Open(t.Context(), toolRoot(t).With(filepath.Dir(path)), path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parts, err := disk.ReadGPT(f, f.Size)
	if err != nil {
		t.Fatal(err)
	}
	r.parts = map[string]disk.Partition{}
	for _, p := range parts {
		r.parts[p.Name] = p
	}
	r.disk = filepath.Join(t.TempDir(), "disk.raw")
	to, err := os.Create(r.disk)
	if err == nil {
		_, err = f.WriteTo(&sparseWriter{f: to})
		err = errors.Join(err, to.Truncate(diskSize), to.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	root := r.parts["root-a"]
	uki, err := fat32.Read(io.NewSectionReader(f, r.parts["esp"].Start, r.parts["esp"].Size), r.parts["esp"].Size)
	if err != nil {
		t.Fatal(err)
	}
	b, err := uki.ReadFile("EFI/Linux/allotment-" + string(firstVersion) + ".efi")
	if err != nil {
		t.Fatal(err)
	}
	r.releases = []known{{firstVersion, partOf(t, bytes.NewReader(b)), partOf(t, io.NewSectionReader(f, root.Start, root.Size))}}
}

func partOf(t *testing.T, r io.Reader) image.Part {
	t.Helper()
	d, n, err := image.DigestOf(r)
	if err != nil {
		t.Fatal(err)
	}
	return image.Part{Digest: d, Size: n}
}

// cut judges disks of count cuts, spread over the phases and drawn by a seed, and boots some of them.
func (r *updates) cut(t *testing.T, count, boots int) {
	down := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) })
	r.p.spoil.Store(&down) // what is under way comes to its end by itself
	defer r.p.spoil.Store(nil)
	w := r.open(t)
	random := rand.New(rand.NewPCG(2026, 11))
	type moment struct {
		phase string
		flush int
		boot  bool
	}
	var moments []moment
	for i := range count {
		ph := r.phases[i%len(r.phases)]
		moments = append(moments, moment{ph.name, ph.from + random.IntN(max(1, ph.to-ph.from)), i >= count-boots})
	}
	slices.SortFunc(moments, func(a, b moment) int { return a.flush - b.flush })
	for _, m := range moments {
		t.Run(fmt.Sprintf("%s after flush %d", m.phase, m.flush), func(t *testing.T) {
			if err := w.goTo(r.log, m.flush); err != nil {
				t.Fatal(err)
			}
			defer w.rewind(t)
			if err := r.log.Cut(w, m.flush, physicalSector, rand.New(rand.NewPCG(3, uint64(m.flush)))); err != nil {
				t.Fatal(err)
			}
			r.judge(t, w)
			if m.boot && !t.Failed() {
				r.boot(t)
			}
		})
	}
	t.Run("damage is seen", func(t *testing.T) { r.seeDamage(t, w) })
}

// judge looks at a disk without booting it.
func (r *updates) judge(t *testing.T, w *wreck) {
	t.Helper()
	if err := r.startable(w.disk); err != nil {
		t.Error(err)
	}
	b := &built{tools: toolRoot(t).With(filepath.Dir(r.disk))}
	if said := b.unsound(t, w.state.Name(), "0"); said != "" {
		t.Error(said)
		return
	}
	to := t.TempDir()
	tools := b.tools.With(to)
	if _, err := output(t.Context(), tools, "btrfs", "restore", "--path-regex", `^/(|update(|/attempt\.json))$`, w.state.Name(), to); err != nil {
		t.Error(err)
		return
	}
	a, err := attempt.Load(filepath.Join(to, "update"))
	switch {
	case err != nil:
		t.Error(err)
	case a != nil:
		t.Logf("the record says %s of version %s", a.Stage, a.To.Version)
	}
}

// startable tells what is wrong with what either boot loader could start.
func (r *updates) startable(f *os.File) error {
	for _, uefi := range []bool{false, true} {
		esp := r.parts["esp"]
		s, err := slot.New(viewOf(f, esp), esp.Size, image.AMD64, uefi, time.Unix(1e9, 0), slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		entries, err := s.Entries()
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(entries, func(e slot.Entry) bool { return !e.Trial }) {
			return fmt.Errorf("no version is committed: %+v", entries)
		}
		for _, e := range entries {
			if err := errors.Join(r.whole(s, f, e.Version), r.grubFiles(f, e.Version)); err != nil {
				return fmt.Errorf("version %s: %w", e.Version, err)
			}
		}
	}
	return nil
}

// espView is an ESP whose repairs stay in memory: the disk is as the cut has left it.
type espView struct {
	*io.SectionReader
	repaired map[int64][]byte // sectors, by their offsets
}

func viewOf(f *os.File, esp disk.Partition) espView {
	return espView{io.NewSectionReader(f, esp.Start, esp.Size), map[int64][]byte{}}
}

const sector = 512 // bytes

// ReadAt implements io.ReaderAt.
func (v espView) ReadAt(p []byte, at int64) (int, error) {
	n, err := v.SectionReader.ReadAt(p, at)
	for where, b := range v.repaired {
		if from, to := max(where, at), min(where+sector, at+int64(n)); from < to {
			copy(p[from-at:to-at], b[from-where:])
		}
	}
	return n, err
}

// WriteAt implements io.WriterAt; what is written is whole sectors.
func (v espView) WriteAt(p []byte, at int64) (int, error) {
	for i := 0; i < len(p); i += sector {
		v.repaired[at+int64(i)] = slices.Clone(p[i:min(i+sector, len(p))])
	}
	return len(p), nil
}

// Sync implements fat32.Device.
func (espView) Sync() error { return nil }

// whole compares a version's UKI and root with what was published.
func (r *updates) whole(s *slot.Store, f *os.File, v image.Version) error {
	i := slices.IndexFunc(r.releases, func(k known) bool { return k.version == v })
	if i < 0 {
		return errors.New("nobody has made it")
	}
	uki, err := s.UKI(v)
	if err != nil {
		return err
	}
	d, _, err := image.DigestOf(uki)
	if err != nil || d != r.releases[i].uki.Digest {
		return fmt.Errorf("its UKI is not what was published (%v)", err)
	}
	for _, name := range []string{"root-a", "root-b"} {
		d, _, err := image.DigestOf(io.NewSectionReader(f, r.parts[name].Start, r.releases[i].root.Size))
		if err == nil && d == r.releases[i].root.Digest {
			return nil
		}
	}
	return errors.New("its root is in neither slot")
}

// grubFiles compares what GRUB starts of a version with its list of sums.
func (r *updates) grubFiles(f *os.File, v image.Version) error {
	// Of two FATs that differ, as a cut between their writes leaves them, the first counts for firmware and GRUB.
	esp, err := fat32.Edit(viewOf(f, r.parts["esp"]), r.parts["esp"].Size, time.Unix(1e9, 0))
	if err != nil {
		return err
	}
	folder := "allotment/" + string(v) + "/"
	sums, err := readAll(esp, folder+"SHA256SUMS")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(sums)), "\n")
	for _, line := range lines {
		sum, name, _ := strings.Cut(line, " ")
		b, err := readAll(esp, folder+strings.TrimLeft(filepath.Base(strings.TrimSpace(name)), "*"))
		if err != nil {
			return err
		}
		if fmt.Sprintf("%x", sha256.Sum256(b)) != sum {
			return fmt.Errorf("%s is not as its sum says", name)
		}
	}
	if len(lines) < 2 {
		return fmt.Errorf("only %d sums", len(lines))
	}
	return nil
}

func readAll(esp *fat32.Editor, path string) ([]byte, error) {
	r, err := esp.Open(path)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// boot boots the disk: one of the versions comes up, or is tried to its end, and all data are there.
func (r *updates) boot(t *testing.T) {
	t.Helper()
	m := start(t, vm.Options{Arch: image.AMD64, Firmware: vm.BIOS, Disk: r.disk, Forward: []int{80}, Limit: vm.Patience(15 * time.Minute)})
	c, from := &club{m, r.passwords}, 0
	c.await(t, &from, `UPDATE-OK |UPDATE-STRANDED |BOOT-OK .*trial=no`)
	if stranded := m.Lines(regexp.MustCompile(`UPDATE-STRANDED `)); len(stranded) > 0 {
		t.Fatal(stranded[0].Text)
	}
	info, err := c.API().Info(t.Context())
	if err != nil || info.Trial || info.Version != firstVersion && info.Version != goodVersion {
		t.Fatalf("the box runs %+v, %v", info, err)
	}
	t.Logf("version %s runs", info.Version)
	if _, err := c.Get(t.Context(), 80, "/.well-known/allotment/health"); err != nil {
		t.Fatal(err)
	}
	mustHave(t, c.openCalendar(t, "user01"), 12, 5)
	m.Close()
}

// seeDamage is the twin of the judging: a byte of a UKI, of a root and of the state that is not as it was is seen.
func (r *updates) seeDamage(t *testing.T, w *wreck) {
	if err := w.goTo(r.log, r.log.Flushes()); err != nil {
		t.Fatal(err)
	}
	if err := r.startable(w.disk); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"root-a", "root-b"} {
		if _, err := w.WriteAt([]byte("damage"), r.parts[name].Start+1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.startable(w.disk); err == nil {
		t.Error("damaged roots are not seen")
	}
	w.rewind(t)
	esp := r.parts["esp"]
	for at := int64(0); at < esp.Size; at += cluster { // the first cluster of each UKI
		var magic [2]byte
		if _, err := w.disk.ReadAt(magic[:], esp.Start+at); err == nil && string(magic[:]) == "MZ" {
			if _, err := w.WriteAt([]byte{0xff}, esp.Start+at+100); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.startable(w.disk); err == nil {
		t.Error("damaged boot files are not seen")
	}
	w.rewind(t)
}

// wreck is a disk as a cut leaves it, and its state partition by itself. What is written to it after goTo can be taken back.
type wreck struct {
	disk, state *os.File
	place       disk.Partition
	flush       int // as the disk was then
	keep        bool
	saved       []piece
}

// piece is what a place of a file held before.
type piece struct {
	file *os.File
	at   int64
	was  []byte
}

func (r *updates) open(t *testing.T) *wreck {
	t.Helper()
	w := &wreck{place: r.parts["state"]}
	w.place.Size = diskSize - w.place.Start
	state := filepath.Join(filepath.Dir(r.disk), "state")
	err := copyPart(r.disk, partition{start: w.place.Start, size: w.place.Size}, state)
	if err == nil {
		w.disk, err = os.OpenFile(r.disk, os.O_RDWR, 0)
	}
	if err == nil {
		w.state, err = os.OpenFile(state, os.O_RDWR, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.disk.Close(); w.state.Close() })
	return w
}

// goTo brings the disk to a flush that is not before the last.
func (w *wreck) goTo(log *vm.WriteLog, flush int) error {
	w.keep = false
	err := log.Replay(w, w.flush, flush)
	w.flush, w.keep = flush, true
	return err
}

// WriteAt implements io.WriterAt.
func (w *wreck) WriteAt(p []byte, at int64) (int, error) {
	if err := w.write(w.disk, p, at); err != nil {
		return 0, err
	}
	if at >= w.place.Start && at+int64(len(p)) <= w.place.Start+w.place.Size {
		if err := w.write(w.state, p, at-w.place.Start); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (w *wreck) write(f *os.File, p []byte, at int64) error {
	if w.keep {
		was := make([]byte, len(p))
		if _, err := f.ReadAt(was, at); err != nil && err != io.EOF {
			return err
		}
		w.saved = append(w.saved, piece{f, at, was})
	}
	_, err := f.WriteAt(p, at)
	return err
}

// rewind takes back what was written since goTo.
func (w *wreck) rewind(t *testing.T) {
	t.Helper()
	for _, p := range slices.Backward(w.saved) {
		if _, err := p.file.WriteAt(p.was, p.at); err != nil {
			t.Fatal(err)
		}
	}
	w.saved = nil
}
