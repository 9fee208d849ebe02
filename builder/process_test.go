package builder

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

// TestMain turns this binary into a builder where a test has started it as one.
func TestMain(m *testing.M) {
	tools.EnterIfAsked()
	if text := os.Getenv(jobVariable); text != "" {
		os.Exit(work(text))
	}
	os.Exit(m.Run())
}

const jobVariable = "ALLOT_TEST_JOB"

// job is a build of profile small by another process.
type job struct {
	Source, Keys, Out, Cache string

	StopAt string            // name of a step that does not end before a signal has come
	Small  map[string]string // folders that get a file system of their own of this size, as for mount(8)
}

// outcome is what the other process says in the end.
type outcome struct {
	Error   string
	Outputs []Output
	Fresh   bool
	Left    []string // what of ours is in the small file systems

	code  int      // exit status
	steps []string // in the order of their beginning
}

// options reads profile and lock.
func (j job) options(to progress.Reporter) (Options, error) {
	p, err := profile.Load(filepath.Join(j.Source, "profiles", "small.toml"))
	if err != nil {
		return Options{}, err
	}
	l, err := lock.Read(filepath.Join(j.Source, "profiles", "small.lock"))
	return Options{Profile: p, Lock: l, Source: Source(j.Source), Arch: image.AMD64, Keys: j.Keys, Out: j.Out,
		Cache: cache.Dir(j.Cache), Progress: to}, err
}

// work does a job as the command allot would, and prints its steps as they begin, then the outcome.
func work(text string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var j job
	err := json.Unmarshal([]byte(text), &j)
	for dir, size := range j.Small {
		err = errors.Join(err, syscall.Mount("none", dir, "tmpfs", 0, "size="+size))
	}
	if err != nil {
		fmt.Println("unable", err)
		return 1
	}
	var o outcome
	var r *Result
	opts, err := j.options(&printer{ctx: ctx, stopAt: j.StopAt})
	if err == nil {
		r, err = Build(ctx, opts)
	}
	if err != nil {
		o.Error = err.Error()
	} else {
		o.Outputs, o.Fresh = r.Outputs, r.Fresh
	}
	for dir := range j.Small {
		o.Left = append(o.Left, unfinished(dir)...)
	}
	b, _ := json.Marshal(o)
	fmt.Printf("outcome %s\n", b)
	if ctx.Err() != nil {
		return 130
	}
	return 0
}

// printer prints the names of steps. The step to stop at ends only when a signal has come, however quick its work was.
type printer struct {
	ctx    context.Context
	stopAt string
}

type printedStep struct {
	*printer
	name string
}

func (p *printer) Step(name string, _ int64) progress.Step {
	fmt.Printf("step %s\n", name)
	return printedStep{p, name}
}

func (printedStep) Add(int64) {}

func (s printedStep) Done(error) {
	if s.name == s.stopAt {
		<-s.ctx.Done()
	}
}

// run does a job in another process and sends it sig when the step to stop at has begun.
func (j job) run(t *testing.T, sig os.Signal) outcome {
	t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), jobVariable+"="+string(text), "TMPDIR="+tmp)
	cmd.Stderr = os.Stderr
	if len(j.Small) > 0 {
		cmd.SysProcAttr = mounter()
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		if len(j.Small) > 0 {
			t.Skip("this host does not let us mount:", err)
		}
		t.Fatal(err)
	}
	var o outcome
	for lines := bufio.NewScanner(out); lines.Scan(); {
		kind, text, _ := strings.Cut(lines.Text(), " ")
		switch kind {
		case "step":
			o.steps = append(o.steps, text)
			if text == j.StopAt {
				cmd.Process.Signal(sig)
			}
		case "outcome":
			if err := json.Unmarshal([]byte(text), &o); err != nil {
				t.Error(err)
			}
		case "unable":
			t.Log(text)
			t.Skip("this host does not let us mount")
		}
	}
	cmd.Wait()
	o.code = cmd.ProcessState.ExitCode()
	if left, err := os.ReadDir(tmp); o.code >= 0 && (err != nil || len(left) > 0) {
		t.Errorf("temporary files are left: %v %v", left, err)
	}
	return o
}

// mounter starts a process that may mount where nobody else sees it.
func mounter() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		a.Cloneflags = syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	return a
}

// recorder is a progress.Reporter that keeps the names of steps.
type recorder struct {
	mu    sync.Mutex
	steps []string
}

func (r *recorder) Step(name string, _ int64) progress.Step {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, name)
	return progress.Silent{}.Step(name, 0)
}

// unfinished lists what no build may leave in a folder of images or a cache. Kinds of entries that are links are another
// cache's.
func unfinished(dir string) []string {
	var left []string
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		name := e.Name()
		if path != dir && (strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".tmp") || strings.HasPrefix(name, "allotment-")) {
			left = append(left, path)
			return nil
		}
		if e.IsDir() && len(name) == 64 { // a finished entry
			return fs.SkipDir
		}
		return nil
	})
	return left
}
