package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

func write(text string) func(string) error {
	return func(tmp string) error { return os.WriteFile(tmp, []byte(text), 0o644) }
}

func TestMakeOnce(t *testing.T) {
	d := Dir(t.TempDir())
	var made atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			path, err := d.Make(t.Context(), "kind", "key", func(tmp string) error {
				made.Add(1)
				return write("whole")(tmp)
			})
			if err != nil {
				t.Error(err)
			}
			if b, _ := os.ReadFile(path); string(b) != "whole" {
				t.Errorf("entry holds %q", b)
			}
		})
	}
	group.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
}

// A step that fails leaves nothing, and the next one starts afresh.
func TestMakeFails(t *testing.T) {
	d := Dir(t.TempDir())
	broken := errors.New("broken")
	_, err := d.Make(t.Context(), "kind", "key", func(tmp string) error {
		if err := os.Mkdir(tmp, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(tmp, "closed"), 0o555); err != nil {
			t.Fatal(err)
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	for _, name := range []string{"key", "key.tmp"} {
		if _, err := os.Lstat(d.Path("kind", name)); err == nil {
			t.Errorf("%s is left behind", name)
		}
	}
	if _, err := d.Make(t.Context(), "kind", "key", write("whole")); err != nil {
		t.Fatal(err)
	}
}

// What a killed build left under the temporary name is not taken for the entry.
func TestMakeAfterKill(t *testing.T) {
	d := Dir(t.TempDir())
	if err := os.MkdirAll(d.Path("kind", "key.tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	path, err := d.Make(t.Context(), "kind", "key", write("whole"))
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "whole" {
		t.Errorf("entry holds %q", b)
	}
}

// Cancelling ends the wait for another build, and a step that was cancelled does not become an entry even if it says
// that it succeeded.
func TestMakeCancelled(t *testing.T) {
	d := Dir(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	_, err := d.Make(ctx, "kind", "key", func(tmp string) error {
		cancel()
		if _, err := d.Make(ctx, "kind", "key", write("other")); !errors.Is(err, context.Canceled) {
			t.Errorf("waiting for a held entry: %v", err)
		}
		return write("half")(tmp)
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Lstat(d.Path("kind", "key")); err == nil {
		t.Error("a cancelled step made an entry")
	}
}

func TestKeyTellsPartsApart(t *testing.T) {
	first, again := Key("a", "b"), Key("a", "b")
	if first != again || first == Key("ab") || first == Key("b", "a") {
		t.Error("keys do not follow their parts")
	}
}

// Discard asks again once it has the entry for itself: what another process has mended meanwhile stays.
func TestDiscard(t *testing.T) {
	d := Dir(t.TempDir())
	path, err := d.Make(t.Context(), "kind", "key", write("damaged"))
	if err != nil {
		t.Fatal(err)
	}
	isDamaged := func(path string) bool {
		b, err := os.ReadFile(path)
		return err == nil && string(b) == "damaged"
	}
	if err := d.Discard(t.Context(), "kind", "key", isDamaged); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the damaged entry is still there")
	}
	if _, err := d.Make(t.Context(), "kind", "key", write("whole")); err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(t.Context(), "kind", "key", isDamaged); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "whole" {
		t.Errorf("entry holds %q", b)
	}
}

// While one holds a lock, another waits until it is cancelled.
func TestLock(t *testing.T) {
	d := Dir(t.TempDir())
	for name, lock := range map[string]func(context.Context) (func(), error){
		"entry":  func(ctx context.Context) (func(), error) { return d.Lock(ctx, "kind", "key") },
		"folder": func(ctx context.Context) (func(), error) { return LockFolder(ctx, string(d)) },
	} {
		unlock, err := lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := lock(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: a lock that is held: %v", name, err)
		}
		unlock()
		again, err := lock(ctx)
		if err != nil {
			t.Fatalf("%s: a lock that is free: %v", name, err)
		}
		again()
	}
}
