package run

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestErrorCarriesLastLines(t *testing.T) {
	err := Host{}.Run(t.Context(), Command{Name: "sh", Args: []string{"-c", "seq 100; echo why >&2; exit 3"}})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("got %v", err)
	}
	text := err.Error()
	if !strings.HasPrefix(text, "cannot run sh: exit status 3\n") || !strings.Contains(text, "\n  100") ||
		!strings.Contains(text, "\n  why") || strings.Contains(text, "\n  50\n") {
		t.Errorf("message is %q", text)
	}
}

func TestStdout(t *testing.T) {
	var out bytes.Buffer
	err := Host{}.Run(t.Context(), Command{Name: "cat", Stdin: strings.NewReader("text"), Stdout: &out})
	if err != nil || out.String() != "text" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

// Cancelling ends the children of the program too.
func TestCancelEndsGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := &firstLine{got: make(chan bool, 1)}
	done := make(chan error, 1)
	go func() {
		done <- Host{}.Run(ctx, Command{Name: "sh", Args: []string{"-c", "echo started; sleep 600 & wait"}, Stdout: out})
	}()
	<-out.got
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v, want that of the context", err)
		}
	case <-time.After(4 * time.Second): // a child that lives on would hold the pipe until WaitDelay
		t.Error("a child of the cancelled program lives on")
	}
}

type firstLine struct{ got chan bool }

func (f *firstLine) Write(b []byte) (int, error) {
	select {
	case f.got <- true:
	default:
	}
	return len(b), nil
}
