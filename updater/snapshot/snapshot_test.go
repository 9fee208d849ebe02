package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"allotment/init/state/btrfs"
	"allotment/init/state/btrfs/btrfstest"
)

const limit = 64 << 20 // bytes

// fill makes two volumes with data, settings and secrets.
func fill(root string) error {
	err := btrfs.EnableQuota(root)
	for _, v := range []string{"web/db", "web/files", "mail/store"} {
		err = errors.Join(err, makeVolume(root, v))
	}
	return errors.Join(err, write(root, "settings/web.json", "old"), write(root, "secrets/web/password", "old"),
		write(root, "layers/a", "old"), btrfs.Sync(root))
}

func makeVolume(root, name string) error {
	path := filepath.Join(root, volumes, name)
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), btrfs.CreateSubvolume(path), os.Chown(path, 33, 34))
	id, e := btrfs.SubvolumeID(path)
	return errors.Join(err, e, btrfs.Assign(root, id), btrfs.SetLimit(root, id, limit),
		unix.Setxattr(path, "trusted.allotment.format", []byte("1"), 0),
		write(root, filepath.Join(volumes, name, "inbox/1"), strings.Repeat("old "+name, 1000)))
}

func write(root, name, text string) error {
	path := filepath.Join(root, name)
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte(text), 0o640))
}

// spoil is what a trial does: it changes, adds and removes.
func spoil(root string) error {
	err := errors.Join(write(root, "volumes/web/db/inbox/1", "new"), write(root, "volumes/web/db/inbox/2", "new"),
		unix.Setxattr(filepath.Join(root, "volumes/web/db"), "trusted.allotment.format", []byte("2"), 0),
		os.Remove(filepath.Join(root, "volumes/web/files/inbox/1")),
		btrfs.Delete(filepath.Join(root, "volumes/mail/store")), makeVolume(root, "chat/log"),
		write(root, "settings/web.json", "new"), write(root, "settings/chat.json", "new"),
		os.RemoveAll(filepath.Join(root, "secrets/web")), write(root, "layers/b", "new"))
	return errors.Join(err, btrfs.CreateSubvolume(filepath.Join(root, "volumes/web/.db.new")), btrfs.Sync(root))
}

// look describes every file of volumes, settings and secrets: names, modes, owners, contents, formats.
func look(root string) (map[string]string, error) {
	seen := map[string]string{}
	var err error
	for _, dir := range append([]string{volumes}, plain...) {
		err = errors.Join(err, filepath.WalkDir(filepath.Join(root, dir), func(path string, e fs.DirEntry, err error) error {
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
				text += fmt.Sprintf(" %x", sha256.Sum256(b))
			}
			format := make([]byte, 16)
			if n, err := unix.Getxattr(path, "trusted.allotment.format", format); err == nil {
				text += " format " + string(format[:n])
			}
			rel, err := filepath.Rel(root, path)
			seen[rel] = text
			return err
		}))
	}
	// A folder of a module without volumes says nothing.
	delete(seen, "volumes/chat")
	return seen, err
}

// wantSame checks that the state looks as it did, with its limits.
func wantSame(t *testing.T, root string, want map[string]string) {
	t.Helper()
	got, err := look(root)
	if err != nil {
		t.Error(err)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s is %q, want %q", name, got[name], want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name] == "" {
			t.Errorf("%s is there", name)
		}
	}
	for _, v := range []string{"web/db", "web/files", "mail/store"} {
		id, err := btrfs.SubvolumeID(filepath.Join(root, volumes, v))
		if err != nil {
			t.Error(err)
			continue
		}
		if _, got, err := btrfs.Usage(root, id); got != limit || err != nil {
			t.Errorf("limit of %s is %d, %v", v, got, err)
		}
	}
}

func TestRestore(t *testing.T) {
	root := t.TempDir()
	btrfstest.Run(t, btrfstest.Make(t), root, func() {
		err := fill(root)
		want, e := look(root)
		if err := errors.Join(err, e, Take(root, "2.0"), spoil(root)); err != nil {
			t.Error(err)
			return
		}
		for range 2 { // the snapshot stays
			if err := Restore(root, "2.0"); err != nil {
				t.Error(err)
			}
			wantSame(t, root, want)
			if err := write(root, "volumes/web/db/inbox/3", "new"); err != nil {
				t.Error(err)
			}
		}
		if err := Remove(root, "2.0"); err != nil || Exists(root, "2.0") {
			t.Errorf("it is there still, %v", err)
		}
		if names, err := List(root); err != nil || len(names) != 0 {
			t.Errorf("left are %q, %v", names, err)
		}
		if err := Remove(root, "2.0"); err != nil {
			t.Error(err)
		}
	})
}

func TestChanges(t *testing.T) {
	root := t.TempDir()
	btrfstest.Run(t, btrfstest.Make(t), root, func() {
		if err := errors.Join(fill(root), Take(root, "2.0")); err != nil {
			t.Error(err)
		}
		if got, err := Changes(root, "2.0"); err != nil || len(got) != 0 {
			t.Errorf("nothing was changed, but got %+v, %v", got, err)
		}
		if err := spoil(root); err != nil {
			t.Error(err)
		}
		got, err := Changes(root, "2.0")
		if err != nil || len(got) != 2 {
			t.Errorf("got %+v, %v", got, err)
			return
		}
		for i, want := range []Change{{Module: "chat", Volume: "log", Files: 1, Bytes: 12000}, {Module: "web", Volume: "db", Files: 2, Bytes: 6}} {
			if got[i].Newest.IsZero() {
				t.Errorf("%+v has no time", got[i])
			}
			want.Newest = got[i].Newest
			if got[i] != want {
				t.Errorf("got %+v, want %+v", got[i], want)
			}
		}
		if got, err := Changes(root, "1.0"); err == nil {
			t.Errorf("compared with nothing: %+v", got)
		}
	})
}

func TestUnfinishedIsRefused(t *testing.T) {
	root := t.TempDir()
	btrfstest.Run(t, btrfstest.Make(t), root, func() {
		if err := errors.Join(fill(root), Take(root, "2.0"), spoil(root)); err != nil {
			t.Error(err)
		}
		before, err := look(root)
		if err != nil {
			t.Error(err)
		}
		path := filepath.Join(root, folder, "2.0", mark)
		for _, text := range []string{"", "{", `{"volumes":[{"module":"..","name":"x"}]}`} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Error(err)
			}
			if err := Restore(root, "2.0"); err == nil || Exists(root, "2.0") {
				t.Errorf("restored by a mark %q", text)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"2.0", "", "..", ".", "a/b", "1.0"} {
			if err := Restore(root, name); err == nil {
				t.Errorf("restored %q", name)
			}
		}
		after, err := look(root)
		if err != nil || !maps.Equal(before, after) {
			t.Errorf("what was refused changed something, %v", err)
		}
	})
}

var errCut = errors.New("cut")

// cutAt makes the store fail at its nth step, having copied what the disk holds then: all that the file system has
// written, and nothing of what it keeps in memory.
func cutAt(s *store, n int, disk, to string) {
	s.step = func() error {
		if n--; n > 0 {
			return nil
		}
		if n == 0 {
			return errors.Join(errCut, btrfstest.Copy(disk, to))
		}
		return errCut
	}
}

// everyCut runs the work with the power cut at every step, and then the check on what the disk held.
func everyCut(t *testing.T, prepare func(root string) error, work func(s *store) error, check func(root string)) {
	root := t.TempDir()
	whole := btrfstest.Make(t)
	btrfstest.Run(t, whole, root, func() {
		if err := prepare(root); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	disk, left := filepath.Join(dir, "disk"), filepath.Join(dir, "left")
	for n := 1; ; n++ {
		if err := btrfstest.Copy(whole, disk); err != nil {
			t.Fatal(err)
		}
		done := false
		btrfstest.Run(t, disk, root, func() {
			s := open(root)
			cutAt(s, n, disk, left)
			if err := work(s); err == nil {
				done = true
			} else if !errors.Is(err, errCut) {
				t.Error(err)
			}
		})
		if done || t.Failed() {
			if n < 10 {
				t.Errorf("only %d steps", n)
			}
			return
		}
		btrfstest.Run(t, left, root, func() { check(root) })
		if t.Failed() {
			t.Fatalf("cut at step %d", n)
		}
	}
}

func TestRestoreIsCut(t *testing.T) {
	var want map[string]string
	everyCut(t, func(root string) (err error) {
		if err := fill(root); err != nil {
			return err
		}
		want, err = look(root)
		return errors.Join(err, Take(root, "2.0"), spoil(root))
	}, func(s *store) error { return s.restore("2.0") }, func(root string) {
		if err := Restore(root, "2.0"); err != nil {
			t.Error(err)
		}
		wantSame(t, root, want)
	})
}

// A snapshot that a cut left is either not there or whole.
func TestTakeIsCut(t *testing.T) {
	var want map[string]string
	everyCut(t, func(root string) (err error) {
		if err := fill(root); err != nil {
			return err
		}
		want, err = look(root)
		return errors.Join(err, write(root, "volumes/web/db/later", "x"), Take(root, "2.0"), // an older one of that name
			os.Remove(filepath.Join(root, "volumes/web/db/later")), btrfs.Sync(root))
	}, func(s *store) error { return s.take("2.0") }, func(root string) {
		if Exists(root, "2.0") {
			want := maps.Clone(want)
			seen, err := look(filepath.Join(root, folder, "2.0"))
			if seen["volumes/web/db/later"] != "" { // cut before the older one was given up
				want["volumes/web/db/later"] = seen["volumes/web/db/later"]
			}
			if err := errors.Join(err, spoil(root), Restore(root, "2.0")); err != nil {
				t.Error(err)
			}
			wantSame(t, root, want)
			return
		}
		if err := Restore(root, "2.0"); err == nil {
			t.Error("restored half a snapshot")
		}
		if err := errors.Join(Take(root, "2.0"), spoil(root), Restore(root, "2.0")); err != nil {
			t.Error(err)
		}
		wantSame(t, root, want)
	})
}
