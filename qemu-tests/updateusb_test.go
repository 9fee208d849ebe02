package qemutests

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/image"
	"allotment/image/disk/fat32"
	"allotment/qemu-tests/vm"
)

// TestUpdateFromUSB has a box whose publisher cannot be reached take a release from a stick, after it has refused a copy that
// lost a few bits, and a stick that is not there.
func TestUpdateFromUSB(t *testing.T) {
	full(t)
	p := newPublisher(t, image.AMD64, "directory", "calendar")
	path := p.build(t, firstVersion, nil)
	p.offer(t, path)
	p.publish(t, goodVersion, withNewFormat)
	away := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "away", http.StatusBadGateway) })
	p.spoil.Store(&away)
	m := bootImage(t, path, vm.Options{Forward: []int{80, ldapPort}, Limit: vm.Patience(45 * time.Minute), Sticks: []string{
		p.stick(t, "UPDATES", func(string, []byte) {}),
		p.stick(t, "SPOILT", func(path string, b []byte) {
			if strings.HasPrefix(path, "blobs/") {
				b[len(b)/2] ^= 1
			}
		}),
	}})
	c := &club{m, accounts(t, m, 1)}
	defer showLogs(t, c.VM)

	for source, want := range map[string]string{"usb:MISSING": "no disk of that name", "usb:": "label", "/state": "label"} {
		err := m.API().SetUpdatePolicy(t.Context(), api.UpdatePolicy{Source: &source})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("source %q: %v, want %q", source, err, want)
		}
	}
	take := func(source string) {
		t.Helper()
		if err := m.API().SetUpdatePolicy(t.Context(), api.UpdatePolicy{Source: &source}); err != nil {
			t.Fatal(err)
		}
	}
	take("usb:SPOILT")
	if err := m.API().UpdateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	for u := c.awaitUpdate(t, "failed"); !strings.Contains(u.Reason, "digest"); u = c.awaitUpdate(t, "failed") {
		time.Sleep(time.Second) // that is still of the publisher who is away
	}
	take("usb:UPDATES")
	c.mustUpdate(t, "UPDATE-OK version="+string(goodVersion), goodVersion)
	c.mustHaveMigrated(t, true)
}

// stick makes the image of a USB stick with a copy of the repository, after change was at its files.
func (p *publisher) stick(t *testing.T, label string, change func(path string, b []byte)) string {
	t.Helper()
	var files []fat32.File
	repo := os.DirFS(p.repo)
	total := int64(fat32.MinSize)
	err := fs.WalkDir(repo, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(path, ".") {
			return err
		}
		b, err := fs.ReadFile(repo, path)
		change(path, b)
		files, total = append(files, fat32.File{Path: path, Data: b}), total+int64(len(b))+fat32.ClusterSize
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), label+".img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	total = (total + 1<<20 - 1) >> 20 << 20
	if err := f.Truncate(total); err != nil {
		t.Fatal(err)
	}
	if err := fat32.Write(f, total, files, fat32.Options{Label: label, Serial: 1, Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}
