package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"allotment/builder/apt"
	"allotment/builder/lock"
	"allotment/image"
	format "allotment/image/delta"
)

// packageOf makes a package whose version is in its digest.
func packageOf(name, version, archive string, size int64) lock.Package {
	d, _, _ := image.DigestOf(strings.NewReader(name + version))
	return lock.Package{Name: name, Version: version, Archive: archive, Size: size, SHA256: d}
}

func TestWithoutUpdates(t *testing.T) {
	const boot = "linux-image-6.12.2-amd64"
	index := &apt.Index{Entries: map[image.Arch][]apt.Entry{image.AMD64: {
		{Package: packageOf("libc6", "1", apt.Main, 100)},
		{Package: packageOf("linux-image-6.12.1-amd64", "1", apt.Main, 1000)},
		{Package: packageOf("libc6", "2", apt.Main, 110)}, // of the suite with updates
		{Package: packageOf("nginx", "2", apt.Security, 10)},
	}}}
	fresh := &lock.Lock{Epoch: 1_800_000_000, Trees: map[string]map[image.Arch][]lock.Package{
		"web":  {image.AMD64: {packageOf("libc6", "2", apt.Main, 110), packageOf("nginx", "2", apt.Security, 10)}},
		"boot": {image.AMD64: {packageOf(boot, "2", apt.Security, 1010)}},
	}}
	versions := func(l *lock.Lock) string {
		var all []string
		for _, p := range l.All(image.AMD64) {
			all = append(all, p.Name+"="+p.Version)
		}
		return strings.Join(all, " ")
	}
	old := withoutUpdates(fresh, index, false)
	if got, want := versions(old), "libc6=1 "+boot+"=2 nginx=2"; got != want {
		t.Errorf("without updates it is %q, want %q", got, want)
	}
	if age := time.Duration(fresh.Epoch-old.Epoch) * time.Second; age != pointAge {
		t.Errorf("it is %s older", age)
	}
	oldest := withoutUpdates(fresh, index, true)
	if got, want := versions(oldest), "libc6=1 linux-image-6.12.1-amd64=1 nginx=2"; got != want {
		t.Errorf("without a new kernel it is %q, want %q", got, want)
	}
	if n := changedDebs(oldest, fresh); n != 110+1010 {
		t.Errorf("apt downloads %d bytes", n)
	}
	if n := changedDebs(oldest, fresh, "web"); n != 110 {
		t.Errorf("apt downloads %d bytes for one tree", n)
	}
}

func TestAdaptiveCountsBlocksThatNothingHas(t *testing.T) {
	o := other{bench: &bench{dir: t.TempDir()}}
	put := func(content string) format.File {
		b := []byte(content)
		d, n, _ := image.DigestOf(strings.NewReader(content))
		f := format.File{Digest: d, Size: n}
		if err := os.WriteFile(filepath.Join(o.dir, d.Hex()), b, 0o644); err != nil {
			t.Fatal(err)
		}
		return f
	}
	block := func(c string) string { return strings.Repeat(c, blockSize) }
	old, same := put(block("a")+block("b")), put(block("s"))
	fresh := put(block("b") + block("c") + block("c") + block("s"))
	n, err := o.adaptive(&pair{From: []format.File{old, same}, To: []format.File{fresh, same}})
	if want := int64(4*32 + blockSize); err != nil || n != want {
		t.Errorf("it reads %d bytes (%v), want %d", n, err, want)
	}
}

func TestReportSaysWhatWasNotReached(t *testing.T) {
	r := report{pairs: []pair{{Name: mailServer, Debs: 1000, ours: ours{delta: 30}, peers: peers{full: 1000}}}}
	page := r.String()
	if !strings.Contains(page, "| mail server: at most 2 % of the full download | 3.0 % | **no** |") || !strings.Contains(page, "1/33.3 | yes |") {
		t.Errorf("the page says:\n%s", page)
	}
}
