package run

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// helperMarker is the argv[0] of this program as a helper, which runs no tests.
const helperMarker = "run-test-helper"

func TestMain(m *testing.M) {
	if os.Args[0] != helperMarker {
		os.Exit(m.Run())
	}
	if err := runHelper(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// runHelper does a helper's job, which is to print "up" by itself or by one that it starts, and to wait.
func runHelper(job string) error {
	switch job {
	case "run-a-program":
		return Host{}.Run(context.Background(), Command{Name: "sh", Args: []string{"-c", "echo up; exec sleep 600"}, Stdout: os.Stdout})
	case "start-another":
		return helper("end-with-caller", os.Stdout).Run()
	case "end-with-caller":
		if err := EndWithCaller(); err != nil {
			return err
		}
		fmt.Println("up")
		_, err := unix.Poll(nil, -1)
		return err
	}
	return fmt.Errorf("no such job: %q", job)
}

func helper(job string, out *os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{helperMarker, job}
	cmd.Stdout = out
	return cmd
}

// The end of the pipe that all of them have is the event that the last one is gone.
func TestDeathOfTheCaller(t *testing.T) {
	for _, job := range []string{"run-a-program", "start-another"} {
		t.Run(job, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			caller := helper(job, w)
			if err := caller.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if b, err := io.ReadAll(io.LimitReader(r, 3)); err != nil || string(b) != "up\n" {
				t.Errorf("read %q, %v", b, err)
			}
			caller.Process.Kill()
			caller.Wait()
			if b, err := io.ReadAll(r); err != nil || len(b) > 0 {
				t.Errorf("read %q, %v; want nothing more", b, err)
			}
		})
	}
}
