package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"allotment/init/plan"
)

// A layer that cannot be read is found when a service of its module fails, and only once in a boot.
func TestScrub(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "whole")
	if err := os.WriteFile(whole, make([]byte, 100_000), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := readToEnd(whole, nil); err != nil {
		t.Errorf("a whole layer: %v", err)
	}
	// A folder opens and then fails to be read, as a damaged layer does.
	u := &unit{module: &module{plan: &plan.Module{Name: "web"}, layers: []string{whole, t.TempDir()}}}
	s := &Supervisor{events: make(chan any, 2)}
	s.scrub(u)
	select {
	case e := <-s.events:
		b, ok := e.(eventBroken)
		if !ok || b.stage != "layer" || !strings.Contains(b.err.Error(), "module web is damaged") {
			t.Errorf("got %#v", e)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("damage was not noticed")
	}
	if u.module.layers != nil {
		t.Error("the layers would be read again at every failure")
	}
}
