package qemutests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"allotment/builder"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/internal/run"
	"allotment/qemu-tests/vm"
)

// probeBuild is the image of testdata/profiles/probe.toml, which is built once for each run of the tests.
var probeBuild = sync.OnceValues(buildProbe)

// buildProbe builds the image from a source folder of its own: the profile and modules of testdata, and everything else as
// it is.
func buildProbe() (*built, error) {
	ctx := context.Background()
	dir, err := cache.Default()
	if err != nil {
		return nil, err
	}
	b := &built{arch: image.AMD64}
	if b.tools, err = openTools(); err != nil {
		return nil, err
	}
	source, err := builder.FindSource(".")
	if err != nil {
		return nil, err
	}
	if b.keys, err = testKeys(ctx, dir, "keys"); err != nil {
		return nil, err
	}
	own := filepath.Join(scratch, "probe-source")
	if err := probeSource(ctx, source, own); err != nil {
		return nil, err
	}
	registry, err := serveForeign(ctx, dir, own, probeProgram())
	if err != nil {
		return nil, err
	}
	defer registry.Close()
	p, err := profile.Load(filepath.Join(own, "profiles", "probe.toml"))
	if err != nil {
		return nil, err
	}
	l, err := probeLock(source, p)
	if err != nil {
		return nil, err
	}
	b.result, err = builder.Build(ctx, builder.Options{Profile: p, Lock: l, Source: source, Arch: b.arch, Keys: b.keys,
		Registry: registry.policy, Out: dir.Path("qemu-tests", "out"), Cache: dir, Progress: progress.Silent{}})
	if err != nil {
		return nil, err
	}
	packed, err := b.result.Image("raw.zst")
	if err != nil {
		return nil, err
	}
	b.raw = filepath.Join(scratch, "probe.raw")
	if err := unpack(packed, b.raw); err != nil {
		return nil, err
	}
	return b, b.look(ctx)
}

// probeSource makes the source folder, with the program probe beside each module.
func probeSource(ctx context.Context, source builder.Source, own string) error {
	for _, part := range []string{"modules", "profiles"} {
		if err := os.CopyFS(filepath.Join(own, part), os.DirFS(filepath.Join("testdata", part))); err != nil {
			return err
		}
	}
	if err := os.Symlink(filepath.Join(string(source), "trees"), filepath.Join(own, "trees")); err != nil {
		return err
	}
	program := probeProgram()
	c := run.Command{Name: "go", Args: []string{"build", "-trimpath", "-buildvcs=false", "-o", program, "./probe"},
		Env: []string{"CGO_ENABLED=0"}}
	if err := (run.Host{}).Run(ctx, c); err != nil {
		return err
	}
	modules, err := filepath.Glob(filepath.Join(own, "modules", "*"))
	if err != nil {
		return err
	}
	for _, m := range modules {
		if err := os.Link(program, filepath.Join(m, "probe")); err != nil {
			return err
		}
	}
	return nil
}

// probeProgram is where the program probe is compiled to.
func probeProgram() string { return filepath.Join(scratch, "probe") }

// probeLock makes a lock of minimal's: the modules of testdata need no packages beyond those of the base layer.
func probeLock(source builder.Source, p *profile.Profile) (*lock.Lock, error) {
	l, err := lock.Read(filepath.Join(string(source), "profiles", "minimal.lock"))
	if err != nil {
		return nil, err
	}
	delete(l.Trees, "page")
	l.Inputs = lock.InputsOf(p.Trees, p.Archs)
	return l, nil
}

// order and answer are those of the program probe.
type (
	order struct {
		What string   `json:"what"`
		Args []string `json:"args,omitempty"`
		On   string   `json:"on,omitempty"`
	}
	answer struct {
		Worked bool   `json:"worked"`
		Errno  string `json:"errno"`
		Text   string `json:"text"`
	}
)

// Services of the module probe beside its first one, by the ports of testdata/modules/probe.
const (
	hog       = "8081"
	namedRoot = "8082"
)

// patient bounds what a busy machine may take for anything.
var patient = vm.Patience(2 * time.Minute)

// probes talks to the probes of a running machine.
type probes struct{ m *vm.VM }

// ask has a module try something.
func (p probes) ask(t *testing.T, module string, o order) answer {
	t.Helper()
	a, err := p.tryAsk(t.Context(), module, o)
	if err != nil {
		t.Fatalf("cannot ask %s to try %v: %v", module, o, err)
	}
	return a
}

func (p probes) tryAsk(ctx context.Context, module string, o order) (a answer, err error) {
	b, err := json.Marshal(o)
	if err != nil {
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, vm.Patience(time.Minute))
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "POST", "http://"+p.m.Address(80)+"/"+module, bytes.NewReader(b))
	if err != nil {
		return a, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("status %s", resp.Status)
	}
	return a, json.NewDecoder(resp.Body).Decode(&a)
}

// mustFail looks that an attempt was refused, with one of the errors that stand for a refusal.
func (p probes) mustFail(t *testing.T, module string, o order, errnos ...string) {
	t.Helper()
	a := p.ask(t, module, o)
	if a.Worked {
		t.Errorf("%s: %v worked: %s", module, o, a.Text)
		return
	}
	for _, e := range errnos {
		if a.Errno == e {
			return
		}
	}
	t.Errorf("%s: %v ended with %s (%s), want %s", module, o, a.Errno, a.Text, strings.Join(errnos, " or "))
}

// mustWork looks that an attempt was not refused, and returns what it said.
func (p probes) mustWork(t *testing.T, module string, o order) string {
	t.Helper()
	a := p.ask(t, module, o)
	if !a.Worked {
		t.Errorf("%s: %v failed: %s", module, o, a.Text)
	}
	return a.Text
}
