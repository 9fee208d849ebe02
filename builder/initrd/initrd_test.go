package initrd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

var spec = Spec{
	Init: []byte("program"),
	Tree: fstest.MapFS{
		"usr/lib/modules/6.12/a.ko":        {Data: []byte("12345"), Mode: 0o600},
		"usr/lib/modules/6.12/modules.dep": {Data: nil},
	},
	Epoch: 1700000000,
}

func written(t *testing.T, s Spec) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWrite(t *testing.T) {
	packed := written(t, spec)
	if !bytes.Equal(packed, written(t, spec)) {
		t.Error("the same input gave other bytes")
	}
	z, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	got, err := list(z)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"dev 40755 2 0:0 ",
		"dev/console 20600 1 5:1 ",
		"dev/null 20666 1 1:3 ",
		"init 100755 1 0:0 program",
		"proc 40755 2 0:0 ",
		"run 40755 2 0:0 ",
		"sys 40755 2 0:0 ",
		"sysroot 40755 2 0:0 ",
		"usr 40755 2 0:0 ",
		"usr/lib 40755 2 0:0 ",
		"usr/lib/modules 40755 2 0:0 ",
		"usr/lib/modules/6.12 40755 2 0:0 ",
		"usr/lib/modules/6.12/a.ko 100644 1 0:0 12345",
		"usr/lib/modules/6.12/modules.dep 100644 1 0:0 ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// list reads a newc archive by its description, apart from the writer.
func list(r io.Reader) ([]string, error) {
	var members []string
	inodes := map[uint64]bool{}
	for {
		head := make([]byte, 110)
		if _, err := io.ReadFull(r, head); err != nil {
			return nil, err
		}
		if string(head[:6]) != "070701" {
			return nil, errors.New("wrong magic")
		}
		var f [13]uint64
		for i := range f {
			var err error
			if f[i], err = strconv.ParseUint(string(head[6+8*i:14+8*i]), 16, 32); err != nil {
				return nil, err
			}
		}
		name := make([]byte, f[11]+-(110+f[11])&3)
		data := make([]byte, f[6]+-f[6]&3)
		if _, err := io.ReadFull(r, name); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(r, data); err != nil {
			return nil, err
		}
		if string(name[:f[11]]) == "TRAILER!!!\x00" {
			return members, nil
		}
		if inodes[f[0]] || f[2] != 0 || f[3] != 0 || f[5] != 1700000000 {
			return nil, fmt.Errorf("%s: inode %d, owner %d:%d, time %d", name, f[0], f[2], f[3], f[5])
		}
		inodes[f[0]] = true
		members = append(members, fmt.Sprintf("%s %o %d %d:%d %s", name[:f[11]-1], f[1], f[4], f[9], f[10], data[:f[6]]))
	}
}

func TestWriteErrors(t *testing.T) {
	link := Spec{Tree: fstest.MapFS{"a": {Mode: fs.ModeSymlink}}}
	twice := Spec{Tree: fstest.MapFS{"init": {}}}
	tooLate := Spec{Tree: fstest.MapFS{}, Epoch: 1 << 32}
	for want, s := range map[string]Spec{"neither a folder": link, "twice": twice, "does not fit": tooLate} {
		if err := Write(io.Discard, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
