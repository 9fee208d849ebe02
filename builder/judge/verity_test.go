package judge

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"allotment/image/verity"
)

// TestVeritysetup lets veritysetup make the same hash device, and verify ours, at sizes around every change of the
// number of levels.
func TestVeritysetup(t *testing.T) {
	dir := t.TempDir()
	for _, blocks := range []int{2, 3, 127, 128, 129, 200, 16384, 16385} {
		size := blocks * verity.BlockSize
		data := write(t, filepath.Join(dir, "data"), random(size, 1))
		var tree bytes.Buffer
		root, err := verity.Format(bytes.NewReader(random(size, 1)), int64(size), &tree)
		if err != nil {
			t.Fatal(err)
		}
		ours := write(t, filepath.Join(dir, "ours"), tree.Bytes())
		theirs := write(t, filepath.Join(dir, "theirs"), nil)
		approve(t, root.String(), "veritysetup", "format", "--salt="+strings.Repeat("00", 32),
			"--uuid="+root.HashUUID().String(), data, theirs)
		if !same(t, ours, theirs) {
			t.Errorf("%d blocks: veritysetup makes another hash device", blocks)
		}
		approve(t, "", "veritysetup", "verify", data, ours, root.String())
	}
}

// TestVeritysetupTwins damages data, tree and superblock: veritysetup and our own check must both refuse.
func TestVeritysetupTwins(t *testing.T) {
	const size = 200 * verity.BlockSize
	for _, c := range []struct {
		name string
		file string
		at   int64
	}{
		{"data", "data", size - 1}, {"tree", "hash", 2*verity.BlockSize + 5}, {"top", "hash", verity.BlockSize},
		{"signature", "hash", 0}, {"salt", "hash", 88}, {"algorithm", "hash", 32},
	} {
		dir := t.TempDir()
		data := write(t, filepath.Join(dir, "data"), random(size, 1))
		var tree bytes.Buffer
		root, err := verity.Format(bytes.NewReader(random(size, 1)), size, &tree)
		if err != nil {
			t.Fatal(err)
		}
		hash := write(t, filepath.Join(dir, "hash"), tree.Bytes())
		approve(t, "", "veritysetup", "verify", data, hash, root.String())
		flip(t, filepath.Join(dir, c.file), c.at)
		refuse(t, "veritysetup", "verify", data, hash, root.String())
		if err := verity.Verify(open(t, data), open(t, hash), root); err == nil {
			t.Errorf("%s flipped: our own check approves", c.name)
		}
	}
}
