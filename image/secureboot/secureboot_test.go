package secureboot

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 22, 1, 2, 3, 4, time.UTC)

// testKeys makes one set of keys for all tests: RSA keys cost time.
var testKeys = sync.OnceValues(func() (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := NewKeys(filepath.Join(dir, "a", "b"), now); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	paths, err := filepath.Glob(filepath.Join(dir, "a", "b", "*"))
	for _, p := range paths {
		if files[filepath.Base(p)], err = os.ReadFile(p); err != nil {
			return nil, err
		}
	}
	return files, err
})

// keyDir is a fresh directory with the test keys.
func keyDir(t testing.TB) string {
	t.Helper()
	files, err := testKeys()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func loadTestKeys(t testing.TB) *Keys {
	t.Helper()
	keys, err := LoadKeys(keyDir(t))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// testPE is the least that the format calls a 64-bit PE file, with some bytes behind its headers.
func testPE(size int) []byte {
	b := make([]byte, size)
	copy(b, "MZ")
	b[0x3c] = 64
	copy(b[64:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[64+24:], 0x20b)
	binary.LittleEndian.PutUint32(b[64+24+108:], 16)
	for i := 400; i < size; i++ {
		b[i] = byte(i)
	}
	return b
}

func TestNewKeys(t *testing.T) {
	if err := NewKeys(t.TempDir(), now); err != nil {
		t.Error("in an empty directory:", err)
	}
	dir := filepath.Join(t.TempDir(), "new", "keys")
	if err := NewKeys(dir, now); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 9 {
		t.Fatalf("%d files, %v; want 9", len(entries), err)
	}
	before := map[string]string{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, %v; want 0600", e.Name(), info.Mode(), err)
		}
		b, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		before[e.Name()] = string(b)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %v, %v; want 0700", info.Mode(), err)
	}
	if err := NewKeys(dir, now); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second NewKeys in one directory: %v, want an error that it exists", err)
	}
	for name, content := range before {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != content {
			t.Errorf("second NewKeys changed %s (%v)", name, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".keys-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := LoadKeys(dir); err != nil {
		t.Error(err)
	}
}

func TestLoadKeysNeedsNoPKKey(t *testing.T) {
	dir := keyDir(t)
	os.Remove(filepath.Join(dir, "PK.key"))
	os.Remove(filepath.Join(dir, "KEK.key"))
	if _, err := LoadKeys(dir); err != nil {
		t.Error(err)
	}
}

// TestLoadKeysErrors breaks a key directory in every way; the error must name the file and the remedy.
func TestLoadKeysErrors(t *testing.T) {
	swap := func(a, b string) func(string) error {
		return func(dir string) error { return os.Rename(filepath.Join(dir, a), filepath.Join(dir, b)) }
	}
	write := func(name, content string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600) }
	}
	for _, c := range []struct {
		name   string
		damage func(dir string) error
		want   string
	}{
		{"no directory", os.RemoveAll, "PK.crt"},
		{"no db.key", swap("db.key", "lost"), "db.key"},
		{"key of another certificate", swap("KEK.key", "db.key"), "db.key"},
		{"no key in the file", write("db.key", "hello"), "db.key"},
		{"damaged key", write("db.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "db.key"},
		{"certificate in place of a key", swap("db.crt", "db.key"), "db."},
		{"damaged certificate", write("KEK.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "KEK.crt"},
		{"no KEK.auth", swap("KEK.auth", "lost"), "KEK.auth"},
		{"variable of another key", swap("PK.auth", "KEK.auth"), "PK.auth"},
		{"variable by an unknown key", write("db.auth", "hello"), "db.auth"},
	} {
		dir := keyDir(t)
		if err := c.damage(dir); err != nil {
			t.Fatal(err)
		}
		_, err := LoadKeys(dir)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "allot key new DIR") {
			t.Errorf("%s: %v, want an error with %q and the remedy", c.name, err, c.want)
		}
	}
}

func TestSignPEIsDeterministicAndIdempotent(t *testing.T) {
	keys := loadTestKeys(t)
	for size := 1000; size < 1009; size++ {
		once, err := SignPE(testPE(size), keys.DB)
		if err != nil {
			t.Fatal(err)
		}
		if len(once)%8 != 0 {
			t.Errorf("signed file has %d bytes, want a multiple of 8", len(once))
		}
		again, err := SignPE(once, keys.DB)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(once, again) {
			t.Errorf("size %d: signing a signed file changed it", size)
		}
		if err := VerifyPE(once, keys.PK, keys.DB.Cert); err != nil {
			t.Error(err)
		}
	}
}

// TestVerifyPENoticesEveryFlip flips each bit of a signed file that is not excluded from the hash.
func TestVerifyPENoticesEveryFlip(t *testing.T) {
	keys := loadTestKeys(t)
	signed, err := SignPE(testPE(1000), keys.DB)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parsePE(signed)
	if err != nil {
		t.Fatal(err)
	}
	for i := range signed[:f.end] {
		if i >= f.checksum && i < f.checksum+4 {
			continue
		}
		signed[i] ^= 1
		if err := VerifyPE(signed, keys.DB.Cert); err == nil {
			t.Errorf("byte %d flipped and not noticed", i)
		}
		signed[i] ^= 1
	}
	signature := len(signed) - 40 // inside the RSA signature, which ends the CMS but for padding
	signed[signature] ^= 1
	if err := VerifyPE(signed, keys.DB.Cert); err == nil {
		t.Error("flipped signature not noticed")
	}
}

func TestVerifyPERefuses(t *testing.T) {
	keys := loadTestKeys(t)
	signed, err := SignPE(testPE(1000), keys.DB)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyPE(signed, keys.PK, keys.KEK); err == nil || !strings.Contains(err.Error(), "unknown key") {
		t.Errorf("signature by another key: %v", err)
	}
	if err := VerifyPE(testPE(1000), keys.DB.Cert); !errors.Is(err, ErrUnsigned) {
		t.Errorf("unsigned file: %v, want ErrUnsigned", err)
	}
	if err := VerifyPE([]byte("MZ"), keys.DB.Cert); err == nil {
		t.Error("a file of two bytes was accepted")
	}
	// The signature of one file does not fit another one of the same length.
	other := testPE(1000)
	other[999] ^= 1
	signedOther, err := SignPE(other, keys.DB)
	if err != nil {
		t.Fatal(err)
	}
	copy(signedOther[1000:], signed[1000:])
	if err := VerifyPE(signedOther, keys.DB.Cert); err == nil || !strings.Contains(err.Error(), "changed") {
		t.Errorf("signature of another file: %v", err)
	}
}

func TestSignRefusesOtherKeys(t *testing.T) {
	keys := loadTestKeys(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := SignPE(testPE(1000), Signer{keys.DB.Cert, key}); err == nil || !strings.Contains(err.Error(), "RSA") {
		t.Errorf("ECDSA key: %v", err)
	}
}

func TestVariable(t *testing.T) {
	keys := loadTestKeys(t)
	list := SignatureList(keys.DB.Cert)
	if n := binary.LittleEndian.Uint32(list[16:]); int(n) != len(list) {
		t.Errorf("list says that it has %d bytes, it has %d", n, len(list))
	}
	auth := keys.Auth[DB]
	if got, want := auth[:8], []byte{0xea, 0x07, 11, 22, 1, 2, 3, 0}; !bytes.Equal(got, want) {
		t.Errorf("time stamp %x, want %x", got, want)
	}
	if n := int(binary.LittleEndian.Uint32(auth[16:])); !bytes.Equal(auth[16+n:], list) {
		t.Error("certificate length does not lead to the content")
	}
	if cert, err := OpenVariable(DB, auth, keys.KEK); err != nil || !cert.Equal(keys.DB.Cert) {
		t.Errorf("OpenVariable: %v", err)
	}
	if _, err := OpenVariable(DB, auth, keys.PK); err == nil {
		t.Error("a variable was accepted that KEK signed, not PK")
	}
	if _, err := OpenVariable(KEK, auth, keys.KEK); err == nil {
		t.Error("db.auth was accepted for KEK")
	}
	n := int(binary.LittleEndian.Uint32(auth[16:]))
	for i := range auth {
		// The form of the CMS allows more than one encoding of what is not signed: its certificates, for example.
		if i >= 16 && i < 16+n-256 {
			continue
		}
		damaged := bytes.Clone(auth)
		damaged[i] ^= 1
		if _, err := OpenVariable(DB, damaged, keys.KEK); err == nil {
			t.Errorf("byte %d flipped and not noticed", i)
		}
	}
}

// FuzzOpenVariable feeds variables to the reader; it must not panic, and accept no other certificate.
func FuzzOpenVariable(f *testing.F) {
	keys := loadTestKeys(f)
	f.Add(keys.Auth[DB])
	f.Fuzz(func(t *testing.T, b []byte) {
		if cert, err := OpenVariable(DB, b, keys.KEK); err == nil && !cert.Equal(keys.DB.Cert) {
			t.Error("a forged variable was accepted")
		}
	})
}

// FuzzVerifyPE feeds files to the reader; it must not panic, and accept nothing but what was signed.
func FuzzVerifyPE(f *testing.F) {
	keys := loadTestKeys(f)
	signed, err := SignPE(testPE(512), keys.DB)
	if err != nil {
		f.Fatal(err)
	}
	pe, err := parsePE(signed)
	if err != nil {
		f.Fatal(err)
	}
	want, err := pe.hash(bytes.NewReader(signed))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add(testPE(512))
	f.Fuzz(func(t *testing.T, b []byte) {
		if VerifyPE(b, keys.DB.Cert) != nil {
			return
		}
		pe, err := parsePE(b)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := pe.hash(bytes.NewReader(b)); err != nil || got != want {
			t.Error("an unsigned file was accepted")
		}
	})
}
