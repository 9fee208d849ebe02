package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"allotment/image"
)

// What fails once or twice of a module's preparation is tried again; what goes on failing is given up, and told.
func TestModuleIsPreparedAgain(t *testing.T) {
	page := &image.Manifest{Modules: []image.Module{{Name: "web", Services: []image.Service{trueService("page")}}}}
	start := func(flaws string) *declared {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "flaws"), []byte(flaws), 0o644); err != nil {
			t.Fatal(err)
		}
		return newDeclared(t, dir, page, nil)
	}
	b := start("xx")
	b.awaitState(t, "web.page", backoff)
	if m := b.Modules()[0]; m.State != "degraded" || !strings.Contains(m.Problem, "no such device") {
		t.Errorf("meanwhile: %+v", m)
	}
	b.awaitState(t, "web.page", ready)
	if told := b.told(); strings.Contains(told, "cannot run") {
		t.Error(told)
	}
	b.end(t)

	b = start(strings.Repeat("x", 2*mostPreparations))
	b.awaitState(t, "web.page", backoff)
	err := b.call(func(context.Context) { // the pauses would take half a minute
		m := b.modules[0]
		m.attempts = mostPreparations - 1
		b.prepareModule(t.Context(), m)
	})
	if err != nil {
		t.Fatal(err)
	}
	b.awaitState(t, "web.page", failed)
	if m, told := b.Modules()[0], b.told(); m.State != "failed" || !strings.Contains(told, "web cannot run: no such device") {
		t.Errorf("in the end: %+v\n%s", m, told)
	}
}
