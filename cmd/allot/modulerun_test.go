package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"allotment/builder/profile"
	"allotment/image"
)

func TestSnapshotSeesEveryChange(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "www", "index.html")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Dir(file), 0o755))
	seen := []string{snapshot(dir)}
	for _, change := range []func() error{
		func() error { return os.WriteFile(file, []byte("one"), 0o644) },
		func() error { return os.WriteFile(file, []byte("three"), 0o644) },
		func() error { return os.Rename(file, file+"~") }, // as editors do
		func() error { return os.WriteFile(file, []byte("three"), 0o644) },
	} {
		must(change())
		now := snapshot(dir)
		if slices.Contains(seen, now) {
			t.Errorf("change %d is not seen", len(seen))
		}
		if now != snapshot(dir) {
			t.Error("a folder that nobody changes has changed")
		}
		seen = append(seen, now)
	}
}

func TestExposedPorts(t *testing.T) {
	p := &profile.Profile{Modules: []*profile.ModuleSpec{
		{Module: image.Module{Ports: []image.Port{{Port: 5222, Expose: "public"}, {Port: 389, Expose: "none"}}}},
		{Module: image.Module{Ports: []image.Port{{Port: 53, Expose: "public", Protocol: "udp"}, {Port: 631, Expose: "lan"},
			{Port: 5222, Expose: "public"}}}},
	}}
	if got := exposed(p); !slices.Equal(got, []int{80, 5222, 631}) {
		t.Errorf("ports %v", got)
	}
}

func TestOutputTellsServicesApart(t *testing.T) {
	var b bytes.Buffer
	o := newOutput(&b)
	o.line("nginx", "a")
	o.say("changed %d", 1)
	if b.String() != "nginx  a\nchanged 1\n" {
		t.Errorf("plain: %q", b.String())
	}
	b.Reset()
	o.colour, o.names = true, nil
	for _, name := range []string{"nginx", "php", "nginx"} {
		o.line(name, "x")
	}
	want := "\x1b[31mnginx\x1b[0m  x\n\x1b[32mphp\x1b[0m  x\n\x1b[31mnginx\x1b[0m  x\n"
	if b.String() != want {
		t.Errorf("in colours: %q", b.String())
	}
}
