package qemutests

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/internal/run"
	"allotment/qemu-tests/vm"
)

// scratch is a folder for what several tests share; it goes when they have run.
var scratch string

func TestMain(m *testing.M) {
	tools.EnterIfAsked()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	var err error
	if slices.Contains(os.Args, "-test.paniconexit0") { // started by go test
		if err := run.EndWithCaller(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if scratch, err = os.MkdirTemp("", "allot-qemu-tests-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	return m.Run()
}

// needMachines skips a test that boots machines where none are wanted.
func needMachines(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots machines: not in -short mode")
	}
}

// full skips a test of the long matrix where only the core set is wanted.
func full(t testing.TB) {
	t.Helper()
	needMachines(t)
	if os.Getenv("ALLOT_FULL") == "" {
		t.Skip("part of the long matrix: set ALLOT_FULL=1, or make test-full")
	}
}

var openTools = sync.OnceValues(func() (*tools.Root, error) {
	dir, err := cache.Default()
	if err != nil {
		return nil, err
	}
	return tools.OpenFrom(context.Background(), dir, profile.Debian{}, progress.Silent{})
})

// toolRoot returns the tool root with the test's temporary folder in it.
func toolRoot(t testing.TB) *tools.Root {
	t.Helper()
	needMachines(t)
	root, err := openTools()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// start starts a machine that the test ends. With ALLOT_CONSOLE set and -v its console is shown. The console of a machine
// in a test that fails is kept.
func start(t *testing.T, o vm.Options) *vm.VM {
	t.Helper()
	if o.Tools == nil {
		o.Tools = toolRoot(t)
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if testing.Verbose() && os.Getenv("ALLOT_CONSOLE") != "" {
		o.Console = func(e vm.Event) { fmt.Printf("%7.1fs  %s %s\n", e.Wall.Seconds(), e.Text, e.Data) }
	}
	m, err := vm.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		if t.Failed() {
			keepConsole(t, m.Log())
		}
	})
	return m
}

// keepConsole copies a console log to where the end of the test does not remove it.
func keepConsole(t *testing.T, log string) {
	to := filepath.Join(os.TempDir(), "allot-"+strings.ReplaceAll(t.Name(), "/", "-")+".log")
	if err := vm.CopySparse(log, to); err != nil {
		t.Log(err)
		return
	}
	t.Logf("the whole console is in %s", to)
}
