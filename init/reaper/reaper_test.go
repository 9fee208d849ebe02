package reaper

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	// Orphans of this process come to it, as they come to PID 1.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func sh(script string) Spec { return Spec{Path: "/bin/sh", Args: []string{"-c", script}} }

// await fails the test if the process does not end; the limit only bounds a failing test.
func await(t *testing.T, p *Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(30 * time.Second):
		t.Fatalf("process %d did not end", p.PID())
	}
}

func TestExitCodes(t *testing.T) {
	r := New()
	defer r.Close()
	for script, want := range map[string]int{"exit 0": 0, "exit 100": 100, "kill -9 $$": 137} {
		p, err := r.Start(sh(script))
		if err != nil {
			t.Fatal(err)
		}
		await(t, p)
		if p.ExitCode() != want {
			t.Errorf("%q: exit code %d, want %d", script, p.ExitCode(), want)
		}
		if (p.Err() == nil) != (want == 0) {
			t.Errorf("%q: error %v", script, p.Err())
		}
		if err := p.Signal(unix.SIGTERM); err != nil {
			t.Errorf("%q: signal after the end: %v", script, err)
		}
	}
}

// Many short processes at once: every exit reaches its own process, even when it comes before Start has returned.
func TestManyAtOnce(t *testing.T) {
	r := New()
	defer r.Close()
	errs := make(chan error)
	const n = 64
	for i := range n {
		go func() {
			p, err := r.Start(sh("exit " + strconv.Itoa(i)))
			if err == nil {
				<-p.Done()
				if p.ExitCode() != i {
					err = errors.New("got the exit code of another process")
				}
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestOrphansAreReaped(t *testing.T) {
	r := New()
	defer r.Close()
	// The shell ends at once; its child waits for standard input and then becomes a zombie of this process.
	in, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := sh("cat <&3 >/dev/null 2>&1 3<&- & echo $!")
	s.Extra = []*os.File{in}
	out, err := r.Run(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := r.Attach(pid)
	if err != nil {
		t.Fatal(err)
	}
	inW.Close()
	await(t, orphan)
	// A reaped process is gone from /proc; a zombie would stay there for ever.
	for end := time.Now().Add(30 * time.Second); ; {
		if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); os.IsNotExist(err) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("orphan %d was not reaped", pid)
		}
		syscall.Kill(os.Getpid(), unix.SIGCHLD)
	}
}

func TestSpec(t *testing.T) {
	r := New()
	defer r.Close()
	in, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(inW, "third"); err != nil {
		t.Fatal(err)
	}
	inW.Close()
	out, err := r.Run(context.Background(), Spec{
		Path:  "/bin/sh",
		Args:  []string{"-c", `echo "$X $(pwd) $(cat) $(cat <&3)"; echo noise >&2`},
		Env:   []string{"X=value", "PATH=/usr/bin:/bin"},
		Dir:   "/usr",
		Extra: []*os.File{in},
	})
	in.Close()
	if got := string(out); err != nil || got != "value /usr  third\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRunErrors(t *testing.T) {
	r := New()
	defer r.Close()
	_, err := r.Run(context.Background(), sh("echo sorry >&2; exit 3"))
	var exit *ExitError
	if !errors.As(err, &exit) || !strings.Contains(err.Error(), "exit code 3: sorry") {
		t.Errorf("got %v", err)
	}
	if _, err := r.Run(context.Background(), Spec{Path: "/no/such/program"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Run(ctx, sh("sleep 10 & wait")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAttachToNothing(t *testing.T) {
	r := New()
	defer r.Close()
	p, err := r.Start(sh("exit 0"))
	if err != nil {
		t.Fatal(err)
	}
	await(t, p)
	if _, err := r.Attach(p.PID()); !errors.Is(err, unix.ESRCH) {
		t.Errorf("attached to a process that has ended: %v", err)
	}
}

// orphan makes a process whose parent has ended, and returns its number. It runs the script with our pipe as input.
func orphan(t *testing.T, r *Reaper, in *os.File, script string) int {
	t.Helper()
	out, err := r.Run(t.Context(), Spec{
		Path: "/bin/sh", Args: []string{"-c", "exec 3<&0; (" + script + ") <&3 >/dev/null 2>&1 & echo $!"}, Stdin: in,
	})
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestHowAnOrphanEnded(t *testing.T) {
	r := New()
	defer r.Close()
	in, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	pid := orphan(t, r, in, "read x; exit 7")
	p, err := r.Attach(pid)
	if err != nil {
		t.Fatal(err)
	}
	inW.Close()
	await(t, p)
	if !p.Child() || p.ExitCode() != 7 {
		t.Errorf("child %v, exit code %d", p.Child(), p.ExitCode())
	}
}

// An orphan that ended before anybody asked for it is remembered, once.
func TestOrphanThatWasReapedBefore(t *testing.T) {
	r := New()
	defer r.Close()
	in, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	pid := orphan(t, r, in, "read line; exit 3")
	hold.Close() // not before its parent has ended, which could reap it
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); os.IsNotExist(err) {
			break
		}
	}
	p, err := r.Attach(pid)
	if err != nil {
		t.Fatal(err)
	}
	await(t, p)
	if p.ExitCode() != 3 {
		t.Errorf("exit code %d", p.ExitCode())
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Errorf("a signal after the end: %v", err)
	}
	if _, err := r.Attach(pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("its end is told twice: %v", err)
	}
}

func TestAttachToAProcessOfOthers(t *testing.T) {
	r := New()
	defer r.Close()
	p, err := r.Attach(os.Getppid())
	if err != nil {
		t.Fatal(err)
	}
	if p.Child() {
		t.Error("our parent counts as our child")
	}
}

func TestStrangersAreBounded(t *testing.T) {
	r := &Reaper{strangers: map[int]syscall.WaitStatus{}}
	for pid := range 10 * mostStrangers {
		r.remember(pid, 0)
	}
	if _, last := r.strangers[10*mostStrangers-1]; len(r.strangers) != mostStrangers || !last {
		t.Errorf("%d are remembered, the last one: %v", len(r.strangers), last)
	}
}
