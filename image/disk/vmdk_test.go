package disk

import (
	"strings"
	"testing"
)

// TestContentIDOfAnyLength guards against qemu-img's habit to write the random ID without leading zeros, which made one
// conversion in sixteen fail.
func TestContentIDOfAnyLength(t *testing.T) {
	const before, after = "# Disk DescriptorFile\nversion=1\n", "\nparentCID=ffffffff\n"
	want := before + "CID=00c0ffee" + after
	for _, id := range []string{"0", "abc", "1234567", "89abcdef"} {
		head := before + "CID=" + id + after
		head += strings.Repeat("\x00", 200-len(head))
		got, err := withContentID([]byte(head), 0xc0ffee)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(head) || strings.TrimRight(string(got), "\x00") != want {
			t.Errorf("ID %s became %q", id, got)
		}
	}
	for _, head := range []string{before + after, before + "CID=1" + after} {
		if got, err := withContentID([]byte(head), 1); err == nil {
			t.Errorf("head %q without room or ID became %q", head, got)
		}
	}
}
