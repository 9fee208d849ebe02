package verity

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// testData is size bytes that look random and are always the same.
func testData(size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// format returns the hash device for data.
func format(t testing.TB, data []byte) ([]byte, RootHash) {
	t.Helper()
	var hash bytes.Buffer
	root, err := Format(bytes.NewReader(data), int64(len(data)), &hash)
	if err != nil {
		t.Fatal(err)
	}
	return hash.Bytes(), root
}

var golden = map[int]string{
	2:     "029679361f62b52579bb33bbbdfd39f0992fc5e78efb3e05628c1bc1a893e996",
	128:   "f06af8e4f2f23b3386a7cf33345aa5f95c3f54f1756d22307570b46d858fd2d7",
	129:   "3f5967a3f9605eaf65cc932d9d883e4b468ac77c6f6b4d45a0d0fa193b71a7df",
	16384: "b278f5948b05a9853c35258b5857ddec521b61eb22942a4673cb52edb3fc4d4f",
	16385: "a5967085f1da25c7bd8dacfe206b51f058caccef7234492dbb934c01b0c92e7b",
}

// TestFormatGolden compares root hashes with those that veritysetup 2.7.5 printed for the same bytes, at the sizes where
// the number of levels changes.
func TestFormatGolden(t *testing.T) {
	for blocks, want := range golden {
		data := testData(blocks * BlockSize)
		hash, root := format(t, data)
		if root.String() != want {
			t.Errorf("%d blocks: root hash %s, want %s", blocks, root, want)
		}
		if int64(len(hash)) != HashSize(int64(len(data))) {
			t.Errorf("%d blocks: hash device of %d bytes, want %d", blocks, len(hash), HashSize(int64(len(data))))
		}
		if err := Verify(bytes.NewReader(data), bytes.NewReader(hash), root); err != nil {
			t.Errorf("%d blocks: %v", blocks, err)
		}
	}
}

func TestFormatRefuses(t *testing.T) {
	for _, size := range []int{0, 1, BlockSize, 2*BlockSize + 1} {
		if _, err := Format(bytes.NewReader(testData(size)), int64(size), io.Discard); err == nil {
			t.Errorf("a tree over %d bytes was made", size)
		}
	}
	if _, err := Format(bytes.NewReader(testData(BlockSize)), 2*BlockSize, io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("data that ends early: %v", err)
	}
}

// TestVerifyNoticesEveryFlip flips one byte in each part and wants that part named.
func TestVerifyNoticesEveryFlip(t *testing.T) {
	data := testData(200 * BlockSize) // two levels: the top block, and two blocks below
	hash, root := format(t, data)
	for _, c := range []struct {
		name string
		in   []byte
		at   int
		want string
	}{
		{"first byte of data", data, 0, "data block 0 "},
		{"last byte of data", data, len(data) - 1, "data block 199 "},
		{"lowest level", hash, 3*BlockSize + 17, "block 3 of the hash device"},
		{"padding of the tree", hash, len(hash) - 1, "block 3 of the hash device"},
		{"top of the tree", hash, BlockSize, "top block"},
		{"signature", hash, 0, "no verity superblock"},
		{"version", hash, 8, "version"},
		{"UUID", hash, 16, "UUID"},
		{"algorithm", hash, 32, "algorithm"},
		{"block size", hash, 64, "block sizes"},
		{"salt size", hash, 80, "top block"},
		{"salt", hash, 88, "top block"},
	} {
		c.in[c.at] ^= 1
		err := Verify(bytes.NewReader(data), bytes.NewReader(hash), root)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s flipped: %v, want an error with %q", c.name, err, c.want)
		}
		c.in[c.at] ^= 1
	}
	if err := Verify(bytes.NewReader(data), bytes.NewReader(hash), root); err != nil {
		t.Fatal("the unflipped device does not verify:", err)
	}
	for blocks, want := range map[byte]string{199: "hashes of more", 201: "data block 200 "} {
		hash[72] = blocks
		err := Verify(bytes.NewReader(append(data, make([]byte, BlockSize)...)), bytes.NewReader(hash), root)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d data blocks: %v, want an error with %q", blocks, err, want)
		}
		hash[72] = 200
	}
	if err := Verify(bytes.NewReader(data[:len(data)-BlockSize]), bytes.NewReader(hash), root); err == nil {
		t.Error("data that lacks its last block was accepted")
	}
	if err := Verify(bytes.NewReader(data), bytes.NewReader(hash[:2*BlockSize]), root); err == nil {
		t.Error("a hash device that ends inside the tree was accepted")
	}
}

func TestUUIDIsSecondHalf(t *testing.T) {
	hash, root := format(t, testData(2*BlockSize))
	sb, err := ReadSuperblock(bytes.NewReader(hash))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.ReplaceAll(sb.UUID.String(), "-", ""), root.String()[32:]; got != want {
		t.Errorf("UUID of the superblock is %s, want %s", got, want)
	}
}

func TestTableLine(t *testing.T) {
	hash, root := format(t, testData(2*BlockSize))
	sb, err := ReadSuperblock(bytes.NewReader(hash))
	if err != nil {
		t.Fatal(err)
	}
	want := "1 8:3 8:4 4096 4096 2 1 sha256 " + root.String() + " " + strings.Repeat("00", 32) + " 1 panic_on_corruption"
	if got := sb.TableLine("8:3", "8:4", root, "panic_on_corruption"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestParseRootHash(t *testing.T) {
	_, root := format(t, testData(2*BlockSize))
	if got, err := ParseRootHash(root.String()); err != nil || got != root {
		t.Errorf("ParseRootHash(%s) = %s, %v", root, got, err)
	}
	for _, s := range []string{"", "00", strings.ToUpper(root.String()), root.String() + "00", strings.Repeat("g", 64)} {
		if _, err := ParseRootHash(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

// FuzzVerify feeds hash devices to the reader; it must neither panic nor accept anything but the one that fits.
func FuzzVerify(f *testing.F) {
	data := testData(130 * BlockSize)
	hash, root := format(f, data)
	f.Add(hash)
	f.Add(hash[:BlockSize])
	f.Add([]byte("verity\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := Verify(bytes.NewReader(data), bytes.NewReader(b), root)
		if err == nil && !bytes.Equal(b[BlockSize:len(hash)], hash[BlockSize:]) {
			t.Error("a forged tree was accepted")
		}
	})
}

func BenchmarkFormat(b *testing.B) {
	data := testData(64 << 20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		format(b, data)
	}
}
