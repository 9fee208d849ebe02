package builder

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"allotment/builder/apt"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/rootfs"
	"allotment/image"
	"allotment/image/secureboot"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

// shop is where the tests build: sources of their own, which nobody changes meanwhile, and caches that share with the
// user's what is fetched, and of what is made only what the test is not about.
type shop struct {
	dir, shared string
	keys        string
	first       outcome // of the first build
	job         job     // that gave it
}

// TestBuilds makes whole images. Its parts follow one another: each goes on with the caches of those before.
func TestBuilds(t *testing.T) {
	if testing.Short() {
		t.Skip("builds images")
	}
	shared, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{dir: t.TempDir(), shared: string(shared)}
	s.keys = filepath.Join(s.dir, "keys")
	if err := secureboot.NewKeys(s.keys, time.Unix(1_790_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	// What is fetched and unpacked is in the shared cache from here on, so that the steps below do not depend on what was.
	warm := s.newJob(t, "warm")
	warm.Cache = s.shared
	if o := warm.run(t, nil); o.Error != "" || o.code != 0 { // others use that cache too: it may hold unfinished work of theirs
		t.Fatalf("exit status %d: %s", o.code, o.Error)
	}
	s.job = s.newJob(t, "a", "deb", "data", "tools", "kernel")
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"two at once", s.twoAtOnce}, {"nothing changed", s.nothingChanged}, {"an output is gone", s.outputGone},
		{"a layer rots", s.layerRots}, {"a file of a module changed", s.fileChanged}, {"root too large", s.rootTooLarge},
		{"images on a full disk", s.fullOut}, {"cache on a full disk", s.fullCache}, {"interrupted", s.interrupted},
	} {
		if !t.Run(part.name, part.test) {
			t.FailNow()
		}
	}
}

// newJob makes a source folder and a cache that shares some kinds of entries.
func (s *shop) newJob(t *testing.T, name string, kinds ...string) job {
	t.Helper()
	j := job{Source: filepath.Join(s.dir, name, "source"), Keys: s.keys, Out: filepath.Join(s.dir, name, "out"),
		Cache: filepath.Join(s.dir, name, "cache")}
	copySource(t, j.Source)
	if err := os.MkdirAll(j.Cache, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		from := filepath.Join(s.shared, kind)
		if err := errors.Join(os.MkdirAll(from, 0o755), os.Symlink(from, filepath.Join(j.Cache, kind))); err != nil {
			t.Fatal(err)
		}
	}
	return j
}

// copySource copies what a build reads of our source code and adds the profile small, a minimal of two forms.
func copySource(t *testing.T, to string) {
	t.Helper()
	err := os.MkdirAll(to, 0o755)
	for _, name := range []string{"api", "cmd", "builder", "gateway", "image", "init", "internal", "modules", "portal", "profiles", "trees", "updater"} {
		err = errors.Join(err, os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join("..", name))))
	}
	lock, e := os.ReadFile("../profiles/minimal.lock")
	text, e2 := os.ReadFile("../profiles/minimal.toml")
	small := strings.NewReplacer(`"minimal"`, `"small"`, `["raw.zst", "qcow2"]`, `["qcow2", "raw.zst"]`).Replace(string(text))
	mod, e3 := os.ReadFile("../go.mod")
	sum, e4 := os.ReadFile("../go.sum")
	err = errors.Join(err, e, e2, e3, e4)
	for name, content := range map[string][]byte{
		"go.mod": mod, "go.sum": sum, "profiles/small.lock": lock, "profiles/small.toml": []byte(small),
	} {
		err = errors.Join(err, os.WriteFile(filepath.Join(to, name), content, 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// wantDone checks that a build came to its end and left nothing beside its images.
func wantDone(t *testing.T, j job, o outcome) {
	t.Helper()
	if o.Error != "" || o.code != 0 {
		t.Fatalf("exit status %d: %s", o.code, o.Error)
	}
	var names []string
	for _, out := range o.Outputs {
		names = append(names, filepath.Base(out.Path))
	}
	entries, err := os.ReadDir(j.Out)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(names, e.Name()) {
			t.Errorf("%s is left in the folder of images", e.Name())
		}
	}
	if left := unfinished(j.Cache); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
}

// wantSame checks that two builds have the same files, byte for byte.
func wantSame(t *testing.T, a, b outcome) {
	t.Helper()
	if len(a.Outputs) == 0 || len(a.Outputs) != len(b.Outputs) {
		t.Fatalf("%d outputs and %d", len(a.Outputs), len(b.Outputs))
	}
	for i, x := range a.Outputs {
		y := b.Outputs[i]
		if filepath.Base(x.Path) != filepath.Base(y.Path) || x.Digest != y.Digest || x.Size != y.Size {
			t.Errorf("%s is %s, %s is %s", x.Path, x.Digest, y.Path, y.Digest)
		}
	}
}

// twoAtOnce has two processes build the same: both succeed, and every step is done by one of them.
func (s *shop) twoAtOnce(t *testing.T) {
	var both [2]outcome
	var group sync.WaitGroup
	for i := range both {
		group.Go(func() { both[i] = s.job.run(t, nil) })
	}
	group.Wait()
	for _, o := range both {
		wantDone(t, s.job, o)
	}
	wantSame(t, both[0], both[1])
	if both[0].Fresh == both[1].Fresh {
		t.Errorf("fresh is %t for both", both[0].Fresh)
	}
	times := map[string]int{}
	for _, step := range slices.Concat(both[0].steps, both[1].steps) {
		// Packages are shared one by one: two builds may begin to unpack the same list, and each takes what the other has done.
		shared := strings.HasPrefix(step, "wait for another build") || strings.HasPrefix(step, "unpack ") ||
			strings.HasPrefix(step, "fetch ")
		if times[step]++; times[step] > 1 && !shared {
			t.Errorf("%q was done twice", step)
		}
	}
	s.first = both[0]
	if !s.first.Fresh {
		s.first = both[1]
	}
}

// nothingChanged builds again, which does nothing and says so.
func (s *shop) nothingChanged(t *testing.T) {
	o := s.job.run(t, nil)
	wantDone(t, s.job, o)
	wantSame(t, s.first, o)
	if len(o.steps) > 1 { // the first waits for others
		t.Errorf("steps: %q", o.steps)
	}
	if text := (&Result{Outputs: o.Outputs, Fresh: o.Fresh}).Text(); !strings.HasPrefix(text, "nothing has changed since the last build\n") {
		t.Errorf("the result says %q", text)
	}
}

// outputGone removes one image: it is noticed, and nothing but images is made again.
func (s *shop) outputGone(t *testing.T) {
	if err := os.Remove(s.first.Outputs[0].Path); err != nil {
		t.Fatal(err)
	}
	o := s.job.run(t, nil)
	wantDone(t, s.job, o)
	wantSame(t, s.first, o)
	wantSteps(t, o.steps, []string{"write the disk image"}, []string{"compile", "make layer", "make the root", "pack"})
}

// layerRots flips a byte of every layer in the cache: it is noticed, and the layers are made again instead of being signed.
func (s *shop) layerRots(t *testing.T) {
	layers, err := filepath.Glob(filepath.Join(s.job.Cache, "layers", "*", layerEROFS))
	if err != nil || len(layers) == 0 {
		t.Fatalf("no layers in the cache (%v)", err)
	}
	for _, path := range layers {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	j := s.job
	j.Out = filepath.Join(s.dir, "rotten")
	o := j.run(t, nil)
	wantDone(t, j, o)
	wantSame(t, s.first, o)
	wantSteps(t, o.steps, []string{"make layer debian-base", "make layer page"}, []string{"make the root"})
}

// wantSteps checks that there are steps that begin with each of some words, and none that begin with others.
func wantSteps(t *testing.T, steps, want, never []string) {
	t.Helper()
	has := func(words string) bool {
		return slices.ContainsFunc(steps, func(s string) bool { return strings.HasPrefix(s, words) })
	}
	for _, w := range want {
		if !has(w) {
			t.Errorf("no step %q in %q", w, steps)
		}
	}
	for _, n := range never {
		if has(n) {
			t.Errorf("step %q in %q", n, steps)
		}
	}
}

// fileChanged changes a page of module web: its layer is made again, and what names the layer.
func (s *shop) fileChanged(t *testing.T) {
	j := s.job
	j.Out = filepath.Join(s.dir, "changed")
	page := filepath.Join(j.Source, "modules", "page", "www", "index.html")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, append(text, "<!-- changed -->\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	o := j.run(t, nil)
	if err := os.WriteFile(page, text, 0o644); err != nil {
		t.Fatal(err)
	}
	wantDone(t, j, o)
	wantSteps(t, o.steps, []string{"make layer page", "make the root file system", "assemble and sign", "write the disk image"},
		[]string{"make layer debian-base", "compile", "pack", "unpack", "fetch"})
	if o.Outputs[0].Digest == s.first.Outputs[0].Digest {
		t.Error("the image is the same")
	}
}

// rootTooLarge gives the root too small a slot: that is said before any disk is written, and a slot that no disk can have
// before anything is made.
func (s *shop) rootTooLarge(t *testing.T) {
	for _, c := range []struct {
		size  int
		want  string
		never string // step
	}{
		{16, "enlarge disk.root in the profile", "check the disk image"},
		{1, "cannot make partition root of 1048576 bytes: want whole MiB, at least 8", "compile the device's programs"},
	} {
		var steps recorder
		j := s.job
		j.Out = filepath.Join(s.dir, "large")
		o, err := j.options(&steps)
		if err != nil {
			t.Fatal(err)
		}
		o.Profile.Disk.Root = c.size
		if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("root of %d MiB: %v, want %q", c.size, err, c.want)
		}
		wantSteps(t, steps.steps, nil, []string{c.never, "make allotment-small"})
		if left := unfinished(j.Out); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// fullOut has no room for the images.
func (s *shop) fullOut(t *testing.T) {
	j := s.job
	j.Out = filepath.Join(s.dir, "fullout")
	s.full(t, j, j.Out, "64m")
}

// fullCache has no room for what is made on the way.
func (s *shop) fullCache(t *testing.T) {
	j := s.newJob(t, "fullcache", "deb", "data", "tools", "kernel", "programs")
	layers := filepath.Join(j.Cache, "layers")
	s.full(t, j, layers, "4m")
}

// full builds with a small file system in one folder.
func (s *shop) full(t *testing.T, j job, dir, size string) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	j.Small = map[string]string{dir: size}
	o := j.run(t, nil)
	if !strings.Contains(o.Error, "no space left on device") && !strings.Contains(o.Error, "No space left on device") {
		t.Errorf("the error does not say that the disk is full: %s", o.Error)
	}
	t.Log(o.Error)
	if len(o.Left) > 0 {
		t.Errorf("left: %v", o.Left)
	}
}

// interrupted stops a build in every step, from the first to the last, and kills it in some. The build that goes on in
// the end gives the very bytes that another cache, another folder of source code and another folder of images gave.
func (s *shop) interrupted(t *testing.T) {
	j := s.newJob(t, "another/b", "deb", "tools")
	shareData(t, s, j)
	for _, step := range s.first.steps {
		if strings.HasPrefix(step, "wait for") {
			continue
		}
		j.StopAt = step
		if step == "make layer debian-base" || step == "write the disk image" {
			if o := j.run(t, syscall.SIGKILL); o.code != -1 {
				t.Errorf("killed in %q: exit status %d, %q", step, o.code, o.Error)
			}
		}
		o := j.run(t, os.Interrupt)
		if o.code != 130 || o.Error != "context canceled" {
			t.Errorf("interrupted in %q: exit status %d, %q", step, o.code, o.Error)
		}
		if left := append(unfinished(j.Out), unfinished(j.Cache)...); len(left) > 0 {
			t.Errorf("interrupted in %q, left: %v", step, left)
		}
	}
	j.StopAt = ""
	o := j.run(t, nil)
	wantDone(t, j, o)
	wantSame(t, s.first, o)
}

// shareData lets a cache have all unpacked packages of the shared one but a few small ones.
func shareData(t *testing.T, s *shop, j job) {
	t.Helper()
	o, err := j.options(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(j.Cache, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	few := o.Lock.All(image.AMD64, "debian-base")
	for _, p := range o.Lock.All(image.AMD64) {
		name := filepath.Join("data", p.SHA256.Hex())
		if slices.Contains(few, p) {
			continue
		}
		if err := os.Symlink(filepath.Join(s.shared, name), filepath.Join(j.Cache, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamagedPackage damages a package in the cache. Where no mirror has it, the error names it; where one has, it is
// fetched again. Either way nothing damaged is unpacked.
func TestDamagedPackage(t *testing.T) {
	shared, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Read("../profiles/minimal.lock")
	if err != nil {
		t.Fatal(err)
	}
	p := l.All(image.AMD64, "debian-base")[0]
	paths, err := apt.New(shared, profile.Debian{}, l.Epoch).Fetch(t.Context(), []lock.Package{p}, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(good)/2] ^= 1
	for name, damaged := range map[string][]byte{"truncated": good[:len(good)/2], "flipped": flipped} {
		t.Run(name, func(t *testing.T) { damagedPackage(t, p, good, damaged) })
	}
}

func damagedPackage(t *testing.T, p lock.Package, good, damaged []byte) {
	there := false // whether the mirror has it
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !there {
			http.NotFound(w, r)
			return
		}
		w.Write(good)
	}))
	defer mirror.Close()
	c := cache.Dir(t.TempDir())
	b := &build{
		Options: Options{Cache: c, Progress: progress.Silent{}},
		archive: apt.New(c, profile.Debian{Mirror: mirror.URL, Security: mirror.URL}),
	}
	path := c.Path("deb", p.SHA256.Hex())
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, damaged, 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.debs(t.Context(), []lock.Package{p}); err == nil || !strings.Contains(err.Error(), "cannot fetch package "+p.String()) {
		t.Errorf("without a mirror: %v", err)
	}
	if left := unfinished(string(c)); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
	there = true
	debs, err := b.debs(t.Context(), []lock.Package{p})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, good) {
		t.Errorf("the cache has other %d bytes (%v)", len(got), err)
	}
	tree := rootfs.New()
	if err := tree.AddPackage(t.Context(), debs[0]); err != nil {
		t.Error(err)
	}
}

// TestUnfinished has unfinished find what is planted: everything that the tests above want not to be there.
func TestUnfinished(t *testing.T) {
	dir := t.TempDir()
	finished := "layers/" + strings.Repeat("ab", 32)
	for _, name := range []string{finished + "/.hidden", "deb/x.lock", "layers/k.tmp/f", ".build-x/disk.raw", "allotment-x.raw"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{filepath.Join(dir, ".build-x"), filepath.Join(dir, "allotment-x.raw"), filepath.Join(dir, "layers/k.tmp")}
	got := unfinished(dir)
	for _, w := range want {
		if !slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, w) }) {
			t.Errorf("%s is not found", w)
		}
	}
	for _, g := range got {
		if !slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(g, w) }) {
			t.Errorf("%s is taken for unfinished", g)
		}
	}
}
