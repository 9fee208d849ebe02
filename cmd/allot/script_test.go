package main

import (
	"context"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"allotment/builder/tools"
	"allotment/image/disk"
	"allotment/internal/cache"
)

var update = flag.Bool("update", false, "write what the commands print now into the scripts")

// TestMain lets the scripts run the real program: this binary, under the name allot.
func TestMain(m *testing.M) {
	tools.EnterIfAsked()
	testscript.Main(m, map[string]func(){"allot": main})
}

// TestScripts runs testdata/*.txtar. Each script has a source folder of its own in $WORK, with our trees and modules, a
// cache that is empty, and mirrors that do not answer, so that none depends on the network or on the user's cache.
func TestScripts(t *testing.T) {
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true, RequireUniqueNames: true, UpdateScripts: *update,
		Setup: func(e *testscript.Env) error { return setUp(e, source) },
		Condition: func(name string) (bool, error) {
			return name == "root" && os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"flip": flip, "cut": cut, "unpack": unpack, "replace": replace, "box": box,
		},
	})
}

// setUp makes a script's source folder, and tells programs where the caches of Go are.
func setUp(e *testscript.Env, source string) error {
	e.Setenv("SOURCE", source)
	bin, _, _ := strings.Cut(e.Getenv("PATH"), string(filepath.ListSeparator)) // where testscript.Main put allot
	e.Setenv("BIN", bin)
	shared, err := cache.Default()
	if err != nil {
		return err
	}
	e.Setenv("SHARED_CACHE", string(shared))
	e.Setenv("ALLOT_CACHE", filepath.Join(e.WorkDir, "cache"))
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOSUMDB", "GOTOOLCHAIN"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			return err
		}
		e.Setenv(name, strings.TrimSpace(string(out)))
	}
	for _, name := range []string{"trees", "modules"} {
		if err := os.Symlink(filepath.Join(source, name), filepath.Join(e.WorkDir, name)); err != nil {
			return err
		}
	}
	lock, err := os.ReadFile(filepath.Join(source, "profiles", "minimal.lock"))
	if err != nil {
		return err
	}
	profiles := filepath.Join(e.WorkDir, "profiles")
	if err := os.MkdirAll(profiles, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(profiles, "small.lock"), lock, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(profiles, "small.toml"), []byte(smallProfile), 0o644)
}

// smallProfile fits the lock of profile minimal.
const smallProfile = `format = 1
name = "small"
title = "Small"
version = "1.0"
channel = "candidate"
arch = ["amd64", "arm64"]
modules = ["page"]
outputs = ["raw.zst"]

[network]
mode = "auto"

[time]
servers = ["192.0.2.1"]

[debian]
mirror = "http://127.0.0.1:1/debian"
security = "http://127.0.0.1:1/debian-security"
snapshot = "http://127.0.0.1:1/snapshot"
`

// flip FILE OFFSET changes one bit of a file.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	path, offset := fileAnd(ts, args)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], offset)
	ts.Check(err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], offset)
	ts.Check(err)
}

// cut FILE SIZE truncates a file.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	path, size := fileAnd(ts, args)
	ts.Check(os.Truncate(path, size))
}

func fileAnd(ts *testscript.TestScript, args []string) (string, int64) {
	if len(args) != 2 {
		ts.Fatalf("want a file and a number, not %q", args)
	}
	n, err := strconv.ParseInt(args[1], 0, 64)
	ts.Check(err)
	return ts.MkAbs(args[0]), n
}

// replace FILE OLD NEW replaces a text, which must be there, in a file.
func replace(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile(args[0])
	if len(args) != 3 || !strings.Contains(text, args[1]) {
		ts.Fatalf("cannot replace %q: not there", args)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o644))
}

// unpack IMAGE RAW writes the disk of an image file to a sparse raw file.
func unpack(ts *testscript.TestScript, neg bool, args []string) {
	img, err := disk.Open(context.Background(), nil, ts.MkAbs(args[0]))
	ts.Check(err)
	defer img.Close()
	out, err := os.Create(ts.MkAbs(args[1]))
	ts.Check(err)
	defer out.Close()
	const block = 1 << 20
	buf := make([]byte, block)
	for at := img.NextData(0) / block * block; at < img.Size; at = img.NextData(at+block) / block * block {
		n, err := img.ReadAt(buf, at)
		if err != io.EOF {
			ts.Check(err)
		}
		_, err = out.WriteAt(buf[:n], at)
		ts.Check(err)
	}
	ts.Check(out.Truncate(img.Size))
}

// TestHelpIsShown wants a golden text of every command that there is.
func TestHelpIsShown(t *testing.T) {
	var script []byte
	for _, file := range []string{"testdata/help.txtar", "testdata/help_device.txtar", "testdata/help_release.txtar"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		script = append(script, b...)
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if line := "exec " + cmd.CommandPath() + " --help\n"; !strings.Contains(string(script), line) {
			t.Errorf("no script of help texts runs %q", line)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
}
