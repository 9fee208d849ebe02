package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"allotment/image/secureboot"
)

// TestInterrupt presses Ctrl-C while allot fetches and while a program runs for it. It ends with the status that shells
// expect, says so, and leaves neither files nor processes behind. (Package builder interrupts every step.)
func TestInterrupt(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles programs")
	}
	t.Run("fetching", func(t *testing.T) {
		e := newProject(t)
		asked := make(chan string, 100)
		mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- r.URL.Path
			w.Header().Set("Content-Length", "100000")
			w.Write(make([]byte, 1000))
			http.NewResponseController(w).Flush()
			<-r.Context().Done() // the rest never comes
		}))
		defer mirror.Close()
		setMirror(t, e, mirror.URL)
		interrupt(t, e, func() { t.Log("fetching", <-asked) })
	})
	t.Run("compiling", func(t *testing.T) {
		e := newProject(t)
		pid := 0
		started := fakeGo(t, e)
		interrupt(t, e, func() { fmt.Fscan(started, &pid) })
		if pid == 0 {
			t.Fatal("the compiler was not started")
		}
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			t.Errorf("process %d is still there: %v", pid, err)
		}
	})
}

// newProject makes what a script has: a source folder with the profile small, and an empty cache; and keys.
func newProject(t *testing.T) *testscript.Env {
	t.Helper()
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	e := &testscript.Env{WorkDir: t.TempDir(), Vars: os.Environ()}
	if err := setUp(e, source); err != nil {
		t.Fatal(err)
	}
	e.Setenv("TMPDIR", t.TempDir())
	if err := secureboot.NewKeys(filepath.Join(e.WorkDir, "keys"), time.Now()); err != nil {
		t.Fatal(err)
	}
	return e
}

// setMirror has the profile name another mirror.
func setMirror(t *testing.T, e *testscript.Env, url string) {
	t.Helper()
	path := filepath.Join(e.WorkDir, "profiles", "small.toml")
	text := strings.ReplaceAll(smallProfile, "http://127.0.0.1:1", url)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fakeGo puts a go first on the PATH that compiles for ever, and returns what its process id can be read from.
func fakeGo(t *testing.T, e *testscript.Env) *os.File {
	t.Helper()
	dir := t.TempDir()
	real, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "started")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" != env ] || exec %q \"$@\"\necho $$ >%q\nexec sleep 100000\n", real, pipe)
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	e.Setenv("PATH", dir+string(filepath.ListSeparator)+e.Getenv("PATH"))
	started, err := os.OpenFile(pipe, os.O_RDWR, 0) // so that neither side waits for the other to open it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { started.Close() })
	return started
}

// interrupt starts a build, waits until it is busy, and sends SIGINT.
func interrupt(t *testing.T, e *testscript.Env, untilBusy func()) {
	t.Helper()
	var said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Args = []string{"allot", "build", "profiles/small.toml", "--source", e.Getenv("SOURCE"), "--keys", "keys",
		"--out", "out", "--arch", "amd64"}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = e.WorkDir, e.Vars, &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	untilBusy()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit status is %d, want 130", code)
	}
	if last := lastLine(said.String()); !strings.HasPrefix(last, "allot: interrupted") {
		t.Errorf("the last line is %q", last)
	}
	for _, dir := range []string{filepath.Join(e.WorkDir, "out"), e.Getenv("ALLOT_CACHE"), e.Getenv("TMPDIR")} {
		filepath.WalkDir(dir, func(path string, f fs.DirEntry, err error) error {
			if err == nil && !f.IsDir() && !strings.HasSuffix(path, ".lock") && !strings.Contains(path, "/programs/") {
				t.Errorf("%s is left", path)
			}
			return nil
		})
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
