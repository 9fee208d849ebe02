package qemutests

import (
	"context"
	"errors"
	"testing"

	"allotment/api"
	"allotment/image"
	"allotment/qemu-tests/vm"
)

// TestAPIThroughThePort asks a box through its virtio port: from its start, past clients that go without a word, and past
// a reset of the machine.
func TestAPIThroughThePort(t *testing.T) {
	b := minimal(t, image.AMD64)
	m := start(t, vm.Options{Tools: b.tools, Firmware: vm.BIOS, Disk: b.raw, Memory: 512})
	ctx := t.Context()
	info, err := m.API().Info(ctx) // waits for the system
	if err != nil {
		t.Fatal(err)
	}
	if info.Version != b.manifest.Version || info.Developer {
		t.Errorf("the box says %+v", info)
	}
	awaitReady(t, m.API(), "page")
	if h, err := m.API().Health(ctx); err != nil || h.Level == api.Bad {
		t.Errorf("health %+v, %v", h, err)
	}
	if _, err := m.API().Processes(ctx); !errors.Is(err, &api.Error{Code: api.NotFound}) {
		t.Errorf("a developer's route on an image for members: %v", err)
	}
	m.API().Close() // one client at a time
	for i := range 10 {
		abandon(t, m.APISocket(), i%2 == 0)
	}
	following := m.API().Events(ctx, api.EventQuery{Follow: true})
	var lost error
	asked := false
	for _, err := range following {
		if lost = err; lost != nil {
			break
		}
		if asked {
			continue
		}
		asked = true
		if err := m.Reset(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if lost == nil {
		t.Error("a stream ends well although its machine was reset")
	}
	awaitReady(t, m.API(), "page")
}

// abandon begins to follow a stream, wants the first item, and then hangs up in the midst of it.
func abandon(t *testing.T, socket string, logs bool) {
	t.Helper()
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	c := api.Port(socket)
	defer c.Close()
	if logs {
		for _, err := range c.Logs(ctx, api.LogQuery{Lines: -1, Follow: true}) {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	for _, err := range c.Events(ctx, api.EventQuery{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		return
	}
}

// awaitReady waits until a module is ready.
func awaitReady(t *testing.T, c *api.Client, module string) {
	t.Helper()
	after := uint64(0)
	for {
		m, err := c.Module(t.Context(), module)
		if err != nil {
			t.Fatal(err)
		}
		if m.State == "ready" {
			return
		}
		for e, err := range c.Events(t.Context(), api.EventQuery{After: after, Follow: true}) {
			if err != nil {
				t.Fatal(err)
			}
			if after = e.Number; e.Module == module {
				break
			}
		}
	}
}
