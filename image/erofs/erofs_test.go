package erofs

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/internal/run"
)

// The images themselves are judged in package rootfs, which can reach the tool root: image imports nothing above it.

// writer stands in for mkfs.erofs: it writes size bytes to the second last argument and keeps them all.
type writer struct {
	size int
	args []string
}

func (w *writer) Run(_ context.Context, c run.Command) error {
	w.args = append([]string{c.Name}, c.Args...)
	return os.WriteFile(c.Args[len(c.Args)-2], make([]byte, w.size), 0o644)
}

func TestMakeFixesEverythingThatVaries(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.erofs")
	w := &writer{size: 2 * BlockSize}
	o := Options{UUID: "00112233-4455-6677-8899-aabbccddeeff", Epoch: time.Unix(7, 0), Label: "web"}
	if err := Make(t.Context(), w, "in.tar", out, o); err != nil {
		t.Fatal(err)
	}
	want := []string{"mkfs.erofs", "--quiet", "--tar=f", "-b", "4096", "-T", "7", "-U", o.UUID, "-L", "web", out, "in.tar"}
	if !slices.Equal(w.args, want) {
		t.Errorf("arguments are %q, want %q", w.args, want)
	}
}

func TestMakeWantsWholeBlocks(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.erofs")
	err := Make(t.Context(), &writer{size: BlockSize + 1}, "in.tar", out, Options{})
	if err == nil || !strings.Contains(err.Error(), "4097 bytes") {
		t.Errorf("error is %v, want one on half a block", err)
	}
}

func TestMakeWithoutTheTool(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	out := filepath.Join(t.TempDir(), "out.erofs")
	if err := Make(t.Context(), run.Host{}, "in.tar", out, Options{}); err == nil || !strings.Contains(err.Error(), "mkfs.erofs") {
		t.Errorf("error is %v, want one that names mkfs.erofs", err)
	}
}
