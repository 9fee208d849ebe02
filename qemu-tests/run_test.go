package qemutests

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"allotment/qemu-tests/vm"
)

func TestRunShutsDownWhenItIsInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	out := &watchedWriter{until: "boot sector started", then: interrupt}
	err := vm.Run(ctx, vm.RunOptions{Machine: vm.Options{
		Tools: toolRoot(t), Dir: t.TempDir(), Firmware: vm.BIOS, Memory: 64, Disk: bootDisk(t)}}, out)
	if err != nil {
		t.Fatal(err)
	}
	if said := out.String(); !strings.Contains(said, "The machine is off") {
		t.Errorf("said\n%s", said)
	}
}

func TestRunEndsAtTheLimit(t *testing.T) {
	var out bytes.Buffer
	err := vm.Run(t.Context(), vm.RunOptions{UntilReady: true, Quiet: true, Machine: vm.Options{
		Tools: toolRoot(t), Dir: t.TempDir(), Firmware: vm.BIOS, Memory: 64, Disk: bootDisk(t), Limit: 2 * time.Second}}, &out)
	if !errors.Is(err, vm.ErrLimit) || !strings.Contains(err.Error(), "boot sector started") {
		t.Errorf("error %v: want the limit and the console", err)
	}
	if out.Len() > 0 {
		t.Errorf("said %q although quiet", out.String())
	}
}

// watchedWriter calls then when it has been given the words of until.
type watchedWriter struct {
	bytes.Buffer
	until string
	then  func()
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if strings.Contains(w.String(), w.until) {
		w.then()
	}
	return n, err
}
