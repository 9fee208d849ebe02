package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/builder/restictest"
	"allotment/image"
	"allotment/init/reaper"
	"allotment/init/state/btrfs"
	"allotment/init/state/btrfs/btrfstest"
	"allotment/updater/snapshot"
)

// testBox is the rest of a box: a module with a database that is dumped, one with files, and the portal.
type testBox struct {
	root   string
	steps  []string // that were run
	told   []string
	fails  string // MODULE STEP
	lacks  string // a module that this box has not
	begun  bool   // restarted
	seen   func(step string)
	hear   func(text string)
	format int // of the database's dump on this box
}

func (b *testBox) Modules() []Module {
	task := &image.Task{}
	all := []Module{
		{Name: "web", Title: "Web site", Volumes: []string{"dump", "uploads"}, Formats: map[string]int{"dump": b.format, "uploads": 0, "db": 3},
			Steps: &image.Backup{Dump: task, Verify: task, Restore: &image.Restore{}, RestoreTest: task}},
		{Name: "calendar", Title: "Calendar", Volumes: []string{"entries"}, Formats: map[string]int{"entries": 0},
			Steps: &image.Backup{Quiesce: task, Resume: task, RestoreTest: task, Open: []string{"entries"}, Export: task}},
		{Name: "portal", Title: "Portal", Volumes: []string{"data"}, Formats: map[string]int{"data": 0}},
	}
	return slices.DeleteFunc(all, func(m Module) bool { return m.Name == b.lacks })
}

func (b *testBox) path(module, volume string) string {
	return filepath.Join(b.root, "volumes", module, volume)
}

func (b *testBox) Format(module, volume string) (int, error) {
	if module == "web" && volume == "dump" {
		return b.format, nil
	}
	return 0, nil
}

// Step dumps and restores by copying between the volumes db and dump.
func (b *testBox) Step(_ context.Context, module, step string) error {
	b.steps = append(b.steps, module+" "+step)
	if b.seen != nil {
		b.seen(module + " " + step)
	}
	if b.fails == module+" "+step {
		return errors.New("planted")
	}
	from, to := filepath.Join(b.path(module, "db"), "data"), filepath.Join(b.path(module, "dump"), "data.sql")
	switch step {
	case "dump":
		return copyFile(from, to)
	case "restore":
		return errors.Join(os.MkdirAll(filepath.Dir(from), 0o755), copyFile(to, from))
	}
	return nil
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

func (b *testBox) Hold() func() { return func() {} }

// Prove wants what came back to be what the box has now.
func (b *testBox) Prove(_ context.Context, module string, volumes map[string]string) ([]string, error) {
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		want, err := look(b.path(module, name))
		have, err2 := look(volumes[name])
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		if !maps.Equal(have, want) {
			return []string{"compare"}, fmt.Errorf("%s has %v, and not %v", name, have, want)
		}
	}
	return []string{"compare"}, nil
}

func (b *testBox) Settings() (string, string) {
	return "Garden club", "[organisation]\nname = \"Garden club\"\n"
}
func (b *testBox) Ready(context.Context, string) error { return nil }
func (b *testBox) Busy() error                         { return nil }
func (b *testBox) Restart(string)                      { b.begun = true }

func (b *testBox) Tell(l api.Level, text string) {
	b.told = append(b.told, string(l)+" "+text)
	if b.hear != nil {
		b.hear(text)
	}
}

func (b *testBox) Mount(label string) (string, func() error, error) {
	if label != "BACKUP" {
		return "", nil, errors.New("no disk of that name is plugged in")
	}
	return filepath.Join(b.root, "disk"), func() error { return nil }, nil
}

// look describes files: modes, owners and contents.
func look(dir string) (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
		if e.Type().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(b[:min(len(b), 40)])
		}
		rel, err := filepath.Rel(dir, path)
		all[rel] = text
		return err
	})
	return all, err
}

// rig is a box on a btrfs of its own with a backup service.
type rig struct {
	*Service
	t    *testing.T
	box  *testBox
	root string
	now  time.Time
	hook func(n int) error // is called before restic is started for the n-th time
	runs int
}

// onBox runs the body with a box that has data.
func onBox(t *testing.T, body func(*rig)) {
	t.Helper()
	program := restictest.Program(t)
	children := reaper.New()
	t.Cleanup(children.Close)
	root := t.TempDir()
	file := btrfstest.Make(t)
	cache := t.TempDir()
	btrfstest.Run(t, file, root, func() {
		r := &rig{t: t, root: root, box: &testBox{root: root, format: 1}, now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)}
		r.must(btrfs.EnableQuota(root))
		for _, v := range []string{"web/db", "web/dump", "web/uploads", "calendar/entries", "portal/data"} {
			path := filepath.Join(root, "volumes", v)
			r.must(errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), btrfs.CreateSubvolume(path), os.Chown(path, 33, 34), os.Chmod(path, 0o750)))
		}
		r.must(os.Mkdir(filepath.Join(root, "disk"), 0o755))
		r.fill("first")
		r.reopen(children, program, cache)
		body(r)
		r.must(snapshot.Remove(root, snapshot.Restored))
	})
}

// reopen is what a start of the supervisor does.
func (r *rig) reopen(children *reaper.Reaper, program, cache string) {
	s, err := Open(Config{
		Root: r.root, Profile: "club", Version: "1.0", Box: r.box, Now: func() time.Time { return r.now },
		Zone: func() *time.Location { return time.UTC }, Warn: func(err error) { r.t.Log(err) },
		Restic: Restic{Reaper: children, Program: program, Cache: cache, Sys: func(bool) (*syscall.SysProcAttr, func(), error) {
			r.runs++
			if r.hook != nil {
				if err := r.hook(r.runs); err != nil {
					return nil, nil, err
				}
			}
			return nil, func() {}, nil
		}},
	})
	r.must(err)
	r.Service = s
	r.box.hear = func(text string) { // whoever hears of an end may ask for the next thing at once
		ended := strings.Contains(text, "backup was made") || strings.Contains(text, "backup failed") || strings.Contains(text, "newest backup")
		if state := s.Status().State; ended && state != api.BackupIdle {
			r.t.Errorf("it tells %q while it is %s", text, state)
		}
	}
}

func (r *rig) again() {
	c := r.config.Restic
	r.reopen(c.Reaper, c.Program, c.Cache)
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Error(err)
		panic("the test cannot go on")
	}
}

// fill gives the box data.
func (r *rig) fill(text string) {
	for name, content := range map[string]string{
		"volumes/web/db/data": "rows " + text, "volumes/web/uploads/photo": strings.Repeat(text, 100000), "volumes/calendar/entries/a.ics": "entry " + text,
		"volumes/portal/data/portal.db": "portal " + text, "settings/settings.json": "settings " + text, "secrets/web/password": "secret " + text,
	} {
		path := filepath.Join(r.root, name)
		r.must(errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o640)))
		if strings.HasPrefix(name, "volumes") {
			r.must(os.Chown(path, 401, 402))
		}
	}
}

func (r *rig) read(name string) string {
	b, err := os.ReadFile(filepath.Join(r.root, name))
	if err != nil {
		return err.Error()
	}
	return string(b[:min(len(b), 20)])
}

var disk = api.BackupTarget{Kind: USB, Label: "BACKUP"}

// clean wants nothing left over on the box.
func (r *rig) clean() {
	r.t.Helper()
	left, err := filepath.Glob(filepath.Join(r.root, "snapshots", "*"))
	r.must(err)
	more, err := filepath.Glob(filepath.Join(r.root, "backup", "scratch*"))
	r.must(err)
	if left = append(left, more...); len(left) > 0 {
		r.t.Errorf("left over: %v", left)
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 kB", 1: "1 kB", 1000: "1 kB", 411_021: "412 kB", 999_001: "1000 kB",
		1_000_000: "1 MB", 2_999_999_999: "2999 MB"} {
		if got := size(bytes); got != want {
			t.Errorf("%d bytes are %s, want %s", bytes, got, want)
		}
	}
}

func TestSaveProveRestore(t *testing.T) {
	onBox(t, func(r *rig) {
		ctx := t.Context()
		sheet, err := r.SetTarget(ctx, disk)
		r.must(err)
		if !sheet.New || r.Status().Lamp.Level == api.Good {
			t.Errorf("at first: %+v", r.Status())
		}
		run, err := r.Save(ctx)
		r.must(err)
		r.clean()
		if run.Files < 6 || run.Snapshot == "" || !slices.Equal(r.box.steps, []string{"web dump", "web verify", "calendar quiesce", "calendar resume"}) {
			t.Errorf("%+v by %v", run, r.box.steps)
		}
		proof, err := r.Prove(ctx)
		r.must(err)
		r.clean()
		if !proof.OK || len(proof.Modules) != 3 || proof.Modules[0].Steps != "files, compare" || proof.Bytes == 0 {
			t.Errorf("%+v", proof)
		}
		r.must(r.Printed())
		if l := r.Lamp(); l.Level != api.Good {
			t.Errorf("%+v", l)
		}
		r.twin()
		r.restoreAll(sheet.Key)
	})
}

// twin plants a difference, which the proof must find.
func (r *rig) twin() {
	r.must(os.WriteFile(filepath.Join(r.root, "volumes/calendar/entries/a.ics"), []byte("another"), 0o640))
	proof, err := r.Prove(r.t.Context())
	if err == nil || proof.OK || proof.Modules[1].OK || !proof.Modules[0].OK || r.Lamp().Level != api.Bad {
		r.t.Errorf("a difference is not seen: %v %+v", err, proof)
	}
	r.clean()
}

// restoreAll brings back what was saved after everything has changed.
func (r *rig) restoreAll(key string) {
	r.fill("second")
	request := api.BackupRestoreRequest{Target: disk, Key: key}
	if err := r.Restore(r.t.Context(), request); err == nil {
		r.t.Error("a restore needs no word that everything may be replaced")
	}
	request.Confirm = true
	r.must(r.Restore(r.t.Context(), request))
	(<-r.wanted)(r.t.Context())
	if !r.box.begun || r.Status().Restore.Stage != stageArmed || r.read("volumes/web/uploads/photo")[:6] != "second" {
		r.t.Errorf("%+v %v", r.Status().Restore, r.box.told)
	}
	r.again() // a start, which must not take away what was fetched
	r.must(Exchange(r.root))
	r.must(Exchange(r.root)) // once more changes nothing
	r.again()
	for name, want := range map[string]string{
		"volumes/calendar/entries/a.ics": "entry first", "volumes/portal/data/portal.db": "portal first", "settings/settings.json": "settings first",
		"secrets/web/password": "secret first", "volumes/web/dump/data.sql": "rows first",
	} {
		if got := r.read(name); got != want {
			r.t.Errorf("%s is %q", name, got)
		}
	}
	if _, err := os.Stat(r.box.path("web", "db")); !errors.Is(err, fs.ErrNotExist) {
		r.t.Error("a volume that is made of the dump is still there")
	}
	var st unix.Stat_t
	r.must(unix.Stat(r.box.path("calendar", "entries"), &st))
	if st.Uid != 33 || st.Gid != 34 || st.Mode&0o7777 != 0o750 {
		r.t.Errorf("the volume belongs to %d:%d with mode %o", st.Uid, st.Gid, st.Mode)
	}
	r.must(unix.Stat(r.box.path("calendar", "entries/a.ics"), &st))
	if st.Uid != 401 || st.Gid != 402 {
		r.t.Errorf("the file belongs to %d:%d", st.Uid, st.Gid)
	}
	r.restoreFails()
	r.box.steps, r.box.seen = nil, func(step string) {
		if st := r.Status(); st.State != api.BackupRestoring || st.Lamp.Level != api.Fair || st.Step == "" {
			r.t.Errorf("at %s: %s %q %+v", step, st.State, st.Step, st.Lamp)
		}
	}
	r.finish(r.t.Context())
	r.box.seen = nil
	if stage := r.Status().Restore.Stage; stage != stageDone || r.read("volumes/web/db/data") != "rows first" {
		r.t.Errorf("%s %v: %s", stage, r.box.steps, r.read("volumes/web/db/data"))
	}
	if _, err := r.Save(r.t.Context()); err != nil { // by the same key
		r.t.Error(err)
	}
	r.clean()
}

// restoreFails has a module's own step fail after the exchange: status, lamp, receipt and event say so. What is tried again later
// begins where this began.
func (r *rig) restoreFails() {
	before := *r.restore
	r.box.fails, r.box.told = "web restore", nil
	r.finish(r.t.Context())
	st := r.Status()
	if st.Restore.Stage != stageFailed || st.Lamp.Level != api.Bad || !strings.Contains(st.Lamp.Text, "Web site: planted") {
		r.t.Errorf("%+v, %+v", st.Restore, st.Lamp)
	}
	if m := st.Restore.Modules; len(m) != 2 || m[0].OK || m[0].Problem != "planted" || !m[1].OK {
		r.t.Errorf("the receipt: %+v", m)
	}
	if told := r.box.told; len(told) != 2 || !strings.Contains(told[0], "still being restored") || !strings.Contains(told[1], "planted") {
		r.t.Errorf("told: %q", told)
	}
	r.box.fails = ""
	r.must(r.reach(&before, stageExchanged))
}

// TestCuts fails at each start of restic in turn, and wants nothing to be left, and the last attempt to succeed.
func TestCuts(t *testing.T) {
	onBox(t, func(r *rig) {
		_, err := r.SetTarget(t.Context(), disk)
		r.must(err)
		for n := 1; ; n++ {
			r.runs, r.hook = 0, func(i int) error {
				if i == n {
					return errors.New("cut")
				}
				return nil
			}
			r.history.Pruned = time.Time{}
			_, err := r.Save(t.Context())
			r.hook = nil
			if err == nil {
				if n < 4 {
					t.Errorf("restic was started %d times", n)
				}
				return
			}
			r.again()
			r.clean() // and the next attempt goes on from here
		}
	})
}

func TestModuleFails(t *testing.T) {
	onBox(t, func(r *rig) {
		_, err := r.SetTarget(t.Context(), disk)
		r.must(err)
		r.box.fails = "web dump"
		run, err := r.Save(t.Context())
		if err == nil || run.OK || run.Snapshot == "" || !strings.Contains(run.Problem, "Web site could not be prepared") {
			t.Errorf("a dump that fails: %v, %+v", err, run)
		}
		r.box.fails, r.box.steps = "calendar quiesce", nil
		if run, err = r.Save(t.Context()); err == nil || run.OK || !slices.Contains(r.box.steps, "calendar resume") {
			t.Errorf("a module that is not quiet: %v, %+v, %v", err, run, r.box.steps)
		}
		r.clean()
		r.box.fails = ""
		if _, err = r.Save(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestWrongKeyDamageAndNewer(t *testing.T) {
	onBox(t, func(r *rig) {
		sheet, err := r.SetTarget(t.Context(), disk)
		r.must(err)
		_, err = r.Save(t.Context())
		r.must(err)
		want := func(what, text string, request api.BackupRestoreRequest) {
			t.Helper()
			request.Target, request.Confirm = disk, true
			if err := r.Restore(t.Context(), request); err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v", what, err)
			}
		}
		other, err := NewKey(bytes.NewReader(make([]byte, 32)))
		r.must(err)
		want("another key", "key does not open", api.BackupRestoreRequest{Key: other.Text()})
		want("a slip of the pen", "no backup key", api.BackupRestoreRequest{Key: sheet.Key[:len(sheet.Key)-1] + "u"})
		want("no such backup", "no such backup", api.BackupRestoreRequest{Key: sheet.Key, Snapshot: "00"})
		r.box.format = 0
		want("newer data", "update the box first", api.BackupRestoreRequest{Key: sheet.Key})
		r.box.format, r.box.lacks = 1, "calendar"
		want("a module that is not there", "Calendar, which is not part", api.BackupRestoreRequest{Key: sheet.Key})
		r.box.lacks = ""

		r.damage()
		if proof, err := r.Prove(t.Context()); err == nil || proof.OK || !strings.Contains(proof.Problem, "damaged") {
			t.Errorf("damage is not seen: %v %+v", err, proof)
		}
		r.clean()
	})
}

// damage changes a byte of every pack at the target.
func (r *rig) damage() {
	packs, err := filepath.Glob(filepath.Join(r.root, "disk/allotment/data/*/*"))
	r.must(err)
	if len(packs) == 0 {
		r.t.Error("there are no packs")
	}
	for _, p := range packs {
		b, err := os.ReadFile(p)
		r.must(err)
		b[len(b)/2] ^= 1
		r.must(errors.Join(os.Chmod(p, 0o600), os.WriteFile(p, b, 0o600)))
	}
}

// slowS3 is an S3 server that tells of the first pack that it gets, and holds it back until it may go on.
func slowS3(t *testing.T) (address string, got, goOn chan struct{}) {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("club"); err != nil {
		t.Fatal(err)
	}
	inner := gofakes3.New(backend).Server()
	got, goOn = make(chan struct{}), make(chan struct{})
	first := make(chan struct{}, 1)
	first <- struct{}{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/data/") {
			select {
			case <-first:
				close(got)
				<-goOn
			default:
			}
		}
		inner.ServeHTTP(w, q)
	}))
	t.Cleanup(server.Close)
	return server.URL, got, goOn
}

// TestKilled kills restic while it sends to an S3 server; what it left there does not stop the next backup.
func TestKilled(t *testing.T) {
	address, got, goOn := slowS3(t)
	onBox(t, func(r *rig) {
		t := api.BackupTarget{Kind: S3, Address: address, Folder: "club/box", User: "key", Secret: "secret"}
		_, err := r.SetTarget(r.t.Context(), t)
		r.must(err)
		killed := make(chan error, 1)
		go func() {
			<-got
			killed <- killChild("restic")
			close(goOn)
		}()
		run, err := r.Save(r.t.Context())
		if e := <-killed; e != nil || err == nil || run.OK {
			r.t.Errorf("killed: %v, %v, %+v", e, err, run)
		}
		r.clean()
		r.again()
		if run, err = r.Save(r.t.Context()); err != nil || !run.OK {
			r.t.Errorf("after it: %v, %+v", err, run)
		}
		all, err := r.Snapshots(r.t.Context())
		if err != nil || len(all) != 1 || all[0].Host != "club" {
			r.t.Errorf("%v, %+v", err, all)
		}
	})
}

// killChild kills this process's children of that name.
func killChild(name string) error {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var pid, parent int
		var command, state string
		if _, err := fmt.Sscan(string(b), &pid, &command, &state, &parent); err == nil && parent == os.Getpid() && command == "("+name+")" {
			return unix.Kill(pid, unix.SIGKILL)
		}
	}
	return fmt.Errorf("there is no process %s", name)
}

// fillUp fills the file system but for 8 MiB.
func fillUp(path string, block []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	return errors.Join(err, f.Truncate(size-8<<20), btrfs.Sync(path))
}

// TestFull fills the file system on which restic keeps what it fetches.
func TestFull(t *testing.T) {
	onBox(t, func(r *rig) {
		photo := make([]byte, 24<<20)
		rand.Read(photo)
		r.must(os.WriteFile(filepath.Join(r.root, "volumes/web/uploads/large"), photo, 0o640))
		sheet, err := r.SetTarget(t.Context(), disk)
		r.must(err)
		_, err = r.Save(t.Context())
		r.must(err)
		full := filepath.Join(r.root, "full")
		r.must(fillUp(full, photo))
		r.must(r.Restore(t.Context(), api.BackupRestoreRequest{Target: disk, Key: sheet.Key, Confirm: true}))
		(<-r.wanted)(t.Context())
		if st := r.Status().Restore; st.Stage != stageFailed || r.box.begun || !strings.Contains(st.Problem, "no room") {
			t.Errorf("%+v", st)
		}
		r.must(os.Remove(full))
		if got := r.read("volumes/calendar/entries/a.ics"); got != "entry first" {
			t.Errorf("the box has %q", got)
		}
		r.again()
		r.clean()
	})
}

// exportWithout has a module's step fail: the others are in the export, which says what is missing, as do status and event.
func (r *rig) exportWithout(fails, want string) {
	r.t.Helper()
	r.box.fails, r.box.told = fails, nil
	var out bytes.Buffer
	r.must(r.Export(r.t.Context(), &out))
	have := r.untar(&out)
	if !strings.Contains(have["MISSING.txt"], want) || have["calendar/entries/a.ics"] != "entry first" {
		r.t.Errorf("%v", have)
	}
	if e := r.Status().Export; e.OK || !strings.Contains(e.Problem, want) || len(r.box.told) != 1 || !strings.Contains(r.box.told[0], want) {
		r.t.Errorf("%+v, %q", e, r.box.told)
	}
	r.clean()
}

// untar reads an export to its end.
func (r *rig) untar(in io.Reader) map[string]string {
	have := map[string]string{}
	for files := tar.NewReader(in); ; {
		h, err := files.Next()
		if err == io.EOF {
			return have
		}
		r.must(err)
		text, err := io.ReadAll(files)
		r.must(err)
		have[h.Name] = string(text)
	}
}

func TestExport(t *testing.T) {
	onBox(t, func(r *rig) {
		var out bytes.Buffer
		r.must(r.Export(t.Context(), &out))
		r.clean()
		if !slices.Contains(r.box.steps, "calendar export") {
			t.Errorf("%v", r.box.steps)
		}
		have := r.untar(&out)
		if len(have) != 3 || have["calendar/entries/a.ics"] != "entry first" || !strings.Contains(have["README.txt"], "Garden club") ||
			!strings.Contains(have["settings.toml"], "name") {
			t.Errorf("%v", have)
		}
		if e := r.Status().Export; e == nil || !e.OK {
			t.Errorf("%+v", e)
		}
		r.exportWithout("calendar export", "Calendar could not be prepared: planted")
		r.exportWithout("web dump", "Web site could not be prepared: planted")
	})
}
