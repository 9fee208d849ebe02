package varstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"allotment/image/secureboot"
)

// emptyStore is a firmware volume with an empty variable store, as EDK2 makes it.
func emptyStore(size int) []byte {
	b := bytes.Repeat([]byte{0xff}, size)
	const header = 72
	clear(b[:header])
	copy(b[16:], volumeGUID[:])
	copy(b[40:], "_FVH")
	binary.LittleEndian.PutUint16(b[48:], header)
	copy(b[header:], storeGUID[:])
	binary.LittleEndian.PutUint32(b[header+16:], uint32(size-header-1000))
	copy(b[header+20:], []byte{storeFormatted, storeHealthy, 0, 0, 0, 0, 0, 0})
	return b
}

func testKeys(t testing.TB) *secureboot.Keys {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if err := secureboot.NewKeys(dir, time.Unix(1795000000, 0)); err != nil {
		t.Fatal(err)
	}
	k, err := secureboot.LoadKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestEnrol(t *testing.T) {
	k := testKeys(t)
	dir := t.TempDir()
	empty, out := filepath.Join(dir, "empty"), filepath.Join(dir, "out")
	if err := os.WriteFile(empty, emptyStore(64<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Enrol(empty, out, k); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil || len(b) != 64<<10 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	for _, list := range [][]byte{
		secureboot.SignatureList(k.PK), secureboot.SignatureList(k.KEK), secureboot.SignatureList(k.DB.Cert),
	} {
		if bytes.Count(b, list) != 1 {
			t.Error("a signature list is not in the store once")
		}
	}
	for _, v := range secureboot.Variables {
		if _, _, err := freeSpace(b, v); err == nil || !strings.Contains(err.Error(), "there already") {
			t.Errorf("%s is not found in the store: %v", v, err)
		}
	}
	if err := Enrol(empty, out, k); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Enrol to the same file: %v", err)
	}
	if err := Enrol(out, filepath.Join(dir, "again"), k); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("Enrol in a store with keys: %v", err)
	}
}

func TestEnrolRefuses(t *testing.T) {
	k := testKeys(t)
	for _, c := range []struct {
		name  string
		store []byte
		want  string
	}{
		{"empty file", nil, "no EDK2 variable store"},
		{"zeros", make([]byte, 4096), "no EDK2 variable store"},
		{"full", emptyStore(3000), "full"},
		{"cut off", emptyStore(64 << 10)[:50000], "cut off"},
	} {
		path := filepath.Join(t.TempDir(), "vars")
		if err := os.WriteFile(path, c.store, 0o644); err != nil {
			t.Fatal(err)
		}
		out := path + ".out"
		if err := Enrol(path, out, k); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
		if _, err := os.Lstat(out); err == nil {
			t.Errorf("%s: a file was left behind", c.name)
		}
	}
}

// FuzzFreeSpace feeds stores to the reader, which must not panic nor point outside.
func FuzzFreeSpace(f *testing.F) {
	f.Add(emptyStore(4096))
	f.Fuzz(func(t *testing.T, b []byte) {
		if at, end, err := freeSpace(b, secureboot.PK); err == nil && (at < 0 || end > len(b)) {
			t.Errorf("free space from %d to %d of %d bytes", at, end, len(b))
		}
	})
}
