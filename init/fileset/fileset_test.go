package fileset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func set(t *testing.T, texts ...string) []File {
	t.Helper()
	var files []File
	for _, text := range texts {
		name, content, _ := strings.Cut(text, "=")
		files = append(files, File{Name: name, Content: []byte(content), UID: os.Getuid(), GID: os.Getgid(), Mode: 0o400})
	}
	return files
}

// visible is what a program sees in the folder: files that it can open, by their names.
func visible(t *testing.T, dir string) string {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range names {
		if e.Name()[0] == '.' {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Errorf("the folder has a name that leads nowhere: %v", err)
		}
		all = append(all, e.Name()+"="+string(b))
	}
	return strings.Join(all, " ")
}

func TestExchangeAndRestore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "chat")
	if err := Restore(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("restored from nothing: %v", err)
	}
	exchange := func(want string, texts ...string) {
		t.Helper()
		if err := Exchange(dir, set(t, texts...)); err != nil {
			t.Fatal(err)
		}
		if got := visible(t, dir); got != want {
			t.Errorf("the folder has %q, want %q", got, want)
		}
	}
	exchange("a=1 b=1", "a=1", "b=1")
	if err := Restore(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("restored from before the first: %v", err)
	}
	exchange("b=2 c=2", "b=2", "c=2")
	if err := Restore(dir); err != nil {
		t.Fatal(err)
	}
	if got := visible(t, dir); got != "a=1 b=1" {
		t.Errorf("restored %q", got)
	}
	if err := Restore(dir); err == nil {
		t.Error("restored twice, from a set that failed")
	}
	for i := range 5 {
		exchange(fmt.Sprintf("a=%d", i), fmt.Sprintf("a=%d", i))
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 { // a, .current, .previous and two sets
		t.Errorf("what is not needed stays: %v, %v", entries, err)
	}
	got, err := Read(dir)
	if err != nil || len(got) != 1 || string(got["a"]) != "4" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestModeAndOwner(t *testing.T) {
	dir := t.TempDir()
	if err := Exchange(dir, set(t, "a=1")); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, "a"))
	if err != nil || st.Mode() != 0o400 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if os.Getuid() != 0 {
		return
	}
	files := set(t, "a=1")
	files[0].UID = 1 << 20
	if err := Exchange(dir, files); err != nil {
		t.Fatal(err)
	}
	if st, err = os.Stat(filepath.Join(dir, "a")); err != nil || owner(st) != 1<<20 {
		t.Errorf("owner %d, %v", owner(st), err)
	}
}

// A reader that holds the folder open, as a bind mount does, sees all files of one set or all of another.
func TestReadersSeeWholeSets(t *testing.T) {
	dir := t.TempDir()
	if err := Exchange(dir, set(t, "a=0", "b=0")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var reader sync.WaitGroup
	stop := make(chan struct{})
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			link, err := os.Readlink(filepath.Join(dir, currentLink))
			if err != nil {
				t.Errorf("between two sets: %v", err)
				return
			}
			a, errA := root.ReadFile(link + "/a")
			b, errB := root.ReadFile(link + "/b")
			// Two exchanges may come between the steps of following links, which takes away what they led to: then it is
			// another set by now. Not by root, which takes more steps.
			_, err = os.Stat(filepath.Join(dir, "a"))
			if now, _ := os.Readlink(filepath.Join(dir, currentLink)); err != nil && now == link {
				t.Errorf("between two sets: %v", err)
			}
			if errA == nil && errB == nil && !slices.Equal(a, b) {
				t.Errorf("a is of set %s, b of set %s", a, b)
			}
		}
	})
	for i := range 200 {
		text := fmt.Sprint(i)
		if err := Exchange(dir, set(t, "a="+text, "b="+text)); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	reader.Wait()
}

// A process that ended anywhere in Exchange leaves a folder that the next one can use.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	if err := Exchange(dir, set(t, "a=1")); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{".new", "b"} {
		if err := os.Symlink(filepath.Join(currentLink, "b"), filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, ".set-7"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Exchange(dir, set(t, "a=2")); err != nil {
		t.Fatal(err)
	}
	if got := visible(t, dir); got != "a=2" {
		t.Errorf("the folder has %q", got)
	}
	if err := Restore(dir); err != nil || visible(t, dir) != "a=1" {
		t.Errorf("restored %q, %v", visible(t, dir), err)
	}
}

func TestNamesAreRefused(t *testing.T) {
	for _, names := range [][]string{{""}, {".current"}, {"../a"}, {"a/b"}, {"a", "a"}} {
		dir := t.TempDir()
		if err := Exchange(dir, set(t, names...)); err == nil {
			t.Errorf("took %q", names)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%q left %v, %v", names, left, err)
		}
	}
}
func owner(st fs.FileInfo) uint32 { return st.Sys().(*syscall.Stat_t).Uid }
