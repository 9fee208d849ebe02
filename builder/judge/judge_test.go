package judge

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image/secureboot"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

func TestMain(m *testing.M) {
	tools.EnterIfAsked()
	os.Exit(m.Run())
}

var openTools = sync.OnceValues(func() (*tools.Root, error) {
	dir, err := cache.Default()
	if err != nil {
		return nil, err
	}
	return tools.OpenFrom(context.Background(), dir, profile.Debian{}, progress.Silent{})
})

func toolRoot(t testing.TB) *tools.Root {
	t.Helper()
	r, err := openTools()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ask runs a judge and returns what it said, and whether its exit status is zero.
func ask(t testing.TB, name string, args ...string) (string, bool) {
	t.Helper()
	out, err := toolRoot(t).Command(t.Context(), name, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err == nil
}

// approve wants that a judge ends with status zero and says want.
func approve(t testing.TB, want, name string, args ...string) {
	t.Helper()
	if said, ok := ask(t, name, args...); !ok || !strings.Contains(said, want) {
		t.Errorf("%s %s says:\n%s", name, strings.Join(args, " "), said)
	}
}

// refuse wants that a judge ends with another status.
func refuse(t testing.TB, name string, args ...string) {
	t.Helper()
	if said, ok := ask(t, name, args...); ok {
		t.Errorf("%s %s approves of a damaged file:\n%s", name, strings.Join(args, " "), said)
	}
}

// random is size bytes that are always the same.
func random(size int, seed byte) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func write(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// flip changes one byte of a file.
func flip(t testing.TB, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// newKeys makes keys in a new folder.
func newKeys(t testing.TB) (string, *secureboot.Keys) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if err := secureboot.NewKeys(dir, time.Unix(1795000000, 0)); err != nil {
		t.Fatal(err)
	}
	k, err := secureboot.LoadKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir, k
}

func same(t testing.TB, a, b string) bool {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}
