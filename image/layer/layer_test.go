package layer

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"allotment/image"
)

// vectors are the digests that fsverity-utils 1.6 prints of files with that many letters a: around the edges of a block
// and of each level of the tree. Package rootfs compares with the program itself.
var vectors = []struct {
	size int64
	want string
}{
	{0, "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"},
	{1, "bce75948b9e7510293f8f2720412af9697c1479281323f3f220623fb8e94b557"},
	{4096, "a2a808ddaced77f0b6b3068f47b14b5a1fb3fc43674993ab11b8e7e6f2d089e2"},
	{4097, "18b155c0b6e054f3f7d22488ed15340e74dc161ce2d123e13eb685c3ce565f70"},
	{524288, "35ce0df2a57eb54aeba7969570bac9dfadfac295ec181a03f13ac7a7da54909e"},
	{524289, "cc4f297494cf9e0b6f159db6d30a62d3fcc219fc9c0cbc2d8792bd264da4d9cb"},
	{67108869, "6f42f661e3102c264726830cd8f8d4e5a0f61cb3cc84e6ccd6e388d3351d9dc8"},
}

// letters reads n letters a.
func letters(n int64) io.Reader { return io.LimitReader(endless{}, n) }

type endless struct{}

func (endless) Read(b []byte) (int, error) { return copy(b, bytes.Repeat([]byte("a"), len(b))), nil }

func TestDigest(t *testing.T) {
	for _, v := range vectors {
		d, size, err := Digest(letters(v.size))
		if err != nil || size != v.size || d != image.Digest("sha256:"+v.want) {
			t.Errorf("digest of %d bytes is %s (%d bytes, %v), want %s", v.size, d, size, err, v.want)
		}
	}
	if d, _, err := Digest(iotest.OneByteReader(letters(4097))); err != nil || d.Hex() != vectors[3].want {
		t.Errorf("digest of single bytes is %s, %v", d, err)
	}
}

func TestDigestTellsReadErrors(t *testing.T) {
	broken := errors.New("broken")
	if _, _, err := Digest(io.MultiReader(letters(5000), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("error is %v, want that of the reader", err)
	}
}

func TestVerify(t *testing.T) {
	content := bytes.Repeat([]byte("layer"), 5000)
	d, size, err := Digest(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	l := image.Layer{Name: "base", Digest: d, Size: size}
	path := filepath.Join(t.TempDir(), FileName(d))
	write := func(b []byte) {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(content)
	if err := Verify(path, l); err != nil {
		t.Errorf("untouched layer: %v", err)
	}
	for _, at := range []int{0, 4096, len(content) - 1} {
		flipped := bytes.Clone(content)
		flipped[at] ^= 1
		write(flipped)
		if err := Verify(path, l); err == nil || !strings.Contains(err.Error(), "fs-verity digest") {
			t.Errorf("a bit flipped in byte %d: error is %v", at, err)
		}
	}
	write(content[:len(content)-1])
	if err := Verify(path, l); err == nil || !strings.Contains(err.Error(), "24999 bytes") {
		t.Errorf("a byte short: error is %v", err)
	}
	if err := Verify(path+"x", l); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: error is %v", err)
	}
}

func TestFileName(t *testing.T) {
	d, _, err := Digest(letters(1))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := FileName(d), d.Hex()+".erofs"; got != want {
		t.Errorf("FileName(%s) = %q, want %q", d, got, want)
	}
}
