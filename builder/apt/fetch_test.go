package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"allotment/internal/progress"
)

const suite = "trixie"

// path is where the mirror has the package.
func poolPath() string { return "/debian/" + hello(suite).Path }

// counter is a progress.Reporter that keeps what it is told.
type counter struct {
	mu    sync.Mutex
	steps []string
	bytes int64
	ended []error
}

func (c *counter) Step(name string, total int64) progress.Step {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps = append(c.steps, fmt.Sprintf("%s: %d", name, total))
	return c
}

func (c *counter) Add(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += n
}

func (c *counter) Done(err error) { c.ended = append(c.ended, err) }

// wantPackage checks that path holds the package.
func wantPackage(t *testing.T, path string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, content(suite)) {
		t.Errorf("the file has %d bytes, want %d; error %v", len(b), len(content(suite)), err)
	}
}

// wantNothing checks that a failed fetch left nothing in the cache that looks like a package.
func wantNothing(t *testing.T, c *Client) {
	t.Helper()
	left, _ := os.ReadDir(c.cache.Path("deb", ""))
	for _, e := range left {
		if !strings.HasSuffix(e.Name(), ".lock") {
			t.Errorf("left %s in the cache", e.Name())
		}
	}
}

func TestFetch(t *testing.T) {
	a := newArchive(t)
	c := a.client(t)
	var told counter
	packages := []Package{hello("trixie-security"), hello(suite)}
	paths, err := c.Fetch(t.Context(), packages, &told)
	if err != nil {
		t.Fatal(err)
	}
	wantPackage(t, paths[1])
	size := packages[0].Size + packages[1].Size
	if want := fmt.Sprintf("fetch 2 packages: %d", size); !slices.Equal(told.steps, []string{want}) {
		t.Errorf("steps are %q, want %q", told.steps, want)
	}
	if told.bytes != size || len(told.ended) != 1 {
		t.Errorf("told of %d bytes, want %d; ended %d times", told.bytes, size, len(told.ended))
	}
	a.Close()
	if _, err := c.Fetch(t.Context(), packages, &told); err != nil {
		t.Errorf("cached packages need the network: %v", err)
	}
	if len(told.steps) != 1 {
		t.Errorf("steps are %q though nothing was to be fetched", told.steps)
	}
}

// TestFetchRefuses spoils the mirror's file.
func TestFetchRefuses(t *testing.T) {
	good := content(suite)
	flipped := bytes.Clone(good)
	flipped[len(good)/2] ^= 1
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"flipped", flipped, "hash is sha256:"},
		{"short", good[:len(good)-1], "bytes where"},
		{"empty", nil, "0 bytes where"},
		{"long", append(bytes.Clone(good), 'x'), "more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newArchive(t)
			a.files[poolPath()] = c.file
			client := a.client(t)
			var told counter
			_, err := client.Fetch(t.Context(), []Package{hello(suite)}, &told)
			if !errors.Is(err, errWrong) || !strings.Contains(err.Error(), c.want) ||
				!strings.Contains(err.Error(), "hello 2.10-5 amd64") {
				t.Errorf("error is %v", err)
			}
			if c.name == "flipped" && !strings.Contains(err.Error(), "want "+string(hello(suite).SHA256)) {
				t.Errorf("error does not say what was expected: %v", err)
			}
			if n := a.requests(poolPath()); n != 1 {
				t.Errorf("asked %d times", n)
			}
			wantNothing(t, client)
		})
	}
}

func TestFetchEndless(t *testing.T) {
	a := newArchive(t)
	a.handlers[poolPath()] = func(w http.ResponseWriter, r *http.Request) {
		for b := make([]byte, 1<<16); ; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}
	if _, err := a.client(t).Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{}); !errors.Is(err, errWrong) {
		t.Errorf("error is %v", err)
	}
}

// snapshotPath is where the snapshot service has the package so long after the lock's date.
func snapshotPath(after time.Duration) string {
	return "/snapshot/archive/debian/" + today.Add(after).Format("20060102T150405Z") + "/" + hello(suite).Path
}

func TestFetchFromSnapshot(t *testing.T) {
	for _, after := range []time.Duration{24 * time.Hour, 0} {
		a := newArchive(t)
		a.files[snapshotPath(after)] = a.files[poolPath()]
		delete(a.files, poolPath())
		paths, err := a.client(t).Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{})
		if err != nil {
			t.Fatal(err)
		}
		wantPackage(t, paths[0])
	}
}

// TestFetchFromSnapshotVerifies has the snapshot service tell lies.
func TestFetchFromSnapshotVerifies(t *testing.T) {
	a := newArchive(t)
	a.files[snapshotPath(24*time.Hour)] = []byte("something else")
	delete(a.files, poolPath())
	c := a.client(t)
	if _, err := c.Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{}); !errors.Is(err, errWrong) {
		t.Errorf("error is %v", err)
	}
	wantNothing(t, c)
}

func TestFetchFromPool(t *testing.T) {
	a := newArchive(t)
	pool := t.TempDir()
	if err := a.client(t).Keep(t.Context(), []Package{hello(suite)}, pool, progress.Silent{}); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(pool, hello(suite).SHA256.Hex()+".deb")
	wantPackage(t, kept)
	a.Close()
	c := a.client(t)
	c.places.Pool = pool
	paths, err := c.Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	wantPackage(t, paths[0])

	damaged := content(suite)
	damaged[5] ^= 1
	if err := os.WriteFile(kept, damaged, 0o644); err != nil {
		t.Fatal(err)
	}
	c = a.client(t)
	c.places.Pool = pool
	_, err = c.Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{})
	if !errors.Is(err, errWrong) || !strings.Contains(err.Error(), kept) {
		t.Errorf("a damaged file in the pool: error is %v", err)
	}
	wantNothing(t, c)

	if err := newArchive(t).client(t).Keep(t.Context(), []Package{hello(suite)}, pool, progress.Silent{}); err != nil {
		t.Fatal(err)
	}
	wantPackage(t, kept)
}

// TestPoolWithoutPackage falls back on the mirror.
func TestPoolWithoutPackage(t *testing.T) {
	c := newArchive(t).client(t)
	c.places.Pool = t.TempDir()
	paths, err := c.Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	wantPackage(t, paths[0])
}

func TestFetchVanished(t *testing.T) {
	a := newArchive(t)
	delete(a.files, poolPath())
	c := a.client(t)
	_, err := c.Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{})
	for _, want := range []string{"hello 2.10-5 amd64", "404", a.URL + poolPath(), a.URL + snapshotPath(0), "--keep"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want it to say %q", err, want)
		}
	}
	wantNothing(t, c)
}

// cut sends the first n bytes of the rest that was asked for, and breaks the connection. Without ranges it begins anew.
func cut(w http.ResponseWriter, r *http.Request, n int, ranges bool) {
	b, from := content(suite), 0
	if ranges {
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
	}
	if from > 0 {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	w.Write(b[from:min(len(b), from+n)])
	if from+n < len(b) {
		panic(http.ErrAbortHandler)
	}
}

// TestFetchResumes breaks every connection after a part of the file; no byte comes twice.
func TestFetchResumes(t *testing.T) {
	a := newArchive(t)
	a.handlers[poolPath()] = func(w http.ResponseWriter, r *http.Request) { cut(w, r, 20000, true) }
	var told counter
	paths, err := a.client(t).Fetch(t.Context(), []Package{hello(suite)}, &told)
	if err != nil {
		t.Fatal(err)
	}
	wantPackage(t, paths[0])
	size := len(content(suite))
	if n, want := a.requests(poolPath()), (size+19999)/20000; n != want {
		t.Errorf("asked %d times, want %d", n, want)
	}
	if told.bytes != int64(size) {
		t.Errorf("told of %d bytes, want %d", told.bytes, size)
	}
}

// TestFetchRestarts is the same with a server that knows no ranges and gets a little further each time.
func TestFetchRestarts(t *testing.T) {
	a := newArchive(t)
	var n atomic.Int64
	a.handlers[poolPath()] = func(w http.ResponseWriter, r *http.Request) { cut(w, r, int(n.Add(1))*80000, false) }
	var told counter
	paths, err := a.client(t).Fetch(t.Context(), []Package{hello(suite)}, &told)
	if err != nil {
		t.Fatal(err)
	}
	wantPackage(t, paths[0])
	if told.bytes != hello(suite).Size {
		t.Errorf("told of %d bytes, want %d", told.bytes, hello(suite).Size)
	}
}

// TestFetchGivesUp has connections that never bring a byte.
func TestFetchGivesUp(t *testing.T) {
	a := newArchive(t)
	a.handlers[poolPath()] = func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }
	c := a.client(t)
	c.epochs = []int64{0}
	if _, err := c.Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{}); err == nil {
		t.Error("fetched a package out of nothing")
	}
	if n := a.requests(poolPath()); n < attempts { // the HTTP client repeats a request of its own, too
		t.Errorf("asked %d times, want %d", n, attempts)
	}
	wantNothing(t, c)
}

func TestFetchFromBusyServer(t *testing.T) {
	a := newArchive(t)
	var n atomic.Int64
	a.handlers[poolPath()] = func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) < 3 {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		w.Write(content(suite))
	}
	paths, err := a.client(t).Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	wantPackage(t, paths[0])
}

// TestFetchFromStalledServer has a server that stops in the middle and keeps the connection open.
func TestFetchFromStalledServer(t *testing.T) {
	a := newArchive(t)
	var n atomic.Int64
	a.handlers[poolPath()] = func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) > 1 {
			cut(w, r, len(content(suite)), true)
			return
		}
		w.Write(content(suite)[:1000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	c := a.client(t)
	c.http.idle = time.Second
	paths, err := c.Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	wantPackage(t, paths[0])
	if n.Load() != 2 {
		t.Errorf("asked %d times", n.Load())
	}
}

func TestFetchCancelled(t *testing.T) {
	a := newArchive(t)
	ctx, cancel := context.WithCancel(t.Context())
	a.handlers[poolPath()] = func(w http.ResponseWriter, r *http.Request) {
		w.Write(content(suite)[:1000])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	}
	c := a.client(t)
	if _, err := c.Fetch(ctx, []Package{hello(suite)}, progress.Silent{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	wantNothing(t, c)
}

// TestFetchTwiceAtOnce has two clients of one cache want the same package: the second waits and fetches nothing.
func TestFetchTwiceAtOnce(t *testing.T) {
	a := newArchive(t)
	one, two := a.client(t), a.client(t)
	two.cache = one.cache
	var group sync.WaitGroup
	for _, c := range []*Client{one, two} {
		group.Go(func() {
			paths, err := c.Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{})
			if err != nil {
				t.Error(err)
				return
			}
			wantPackage(t, paths[0])
		})
	}
	group.Wait()
	if n := a.requests(poolPath()); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestFullDisk fails at once, with the disk's error.
func TestFullDisk(t *testing.T) {
	a := newArchive(t)
	c := a.client(t)
	p := hello(suite)
	err := c.http.exact(t.Context(), a.URL+poolPath(), "/dev/full", p.Size, p.SHA256, func(int64) {})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error is %v", err)
	}
	if n := a.requests(poolPath()); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestPackageCheck(t *testing.T) {
	if err := hello(suite).Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Package){
		"name":         func(p *Package) { p.Name = "Hello" },
		"option":       func(p *Package) { p.Name = "-o" },
		"version":      func(p *Package) { p.Version = "" },
		"line":         func(p *Package) { p.Version = "1\n2" },
		"arch":         func(p *Package) { p.Arch = "i386" },
		"source":       func(p *Package) { p.Source = "\"" },
		"archive":      func(p *Package) { p.Archive = "ports" },
		"path up":      func(p *Package) { p.Path = "pool/../../etc/x.deb" },
		"path outside": func(p *Package) { p.Path = "/pool/x.deb" },
		"path query":   func(p *Package) { p.Path = "pool/x?y.deb" },
		"size":         func(p *Package) { p.Size = 0 },
		"huge":         func(p *Package) { p.Size = maxPackage + 1 },
		"hash":         func(p *Package) { p.SHA256 = "sha256:00" },
	} {
		p := hello(suite)
		spoil(&p)
		if p.Check() == nil {
			t.Errorf("%s: accepted %+v", name, p)
		}
	}
}

// TestFetchMends damages packages in the cache: they are not handed out but fetched again, or the error names them.
func TestFetchMends(t *testing.T) {
	flipped := content(suite)
	flipped[len(flipped)/2] ^= 1
	for name, damaged := range map[string][]byte{"flipped": flipped, "truncated": flipped[:100], "empty": nil} {
		t.Run(name, func(t *testing.T) {
			a := newArchive(t)
			c := a.client(t)
			paths, err := c.Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(paths[0], damaged, 0o644); err != nil {
				t.Fatal(err)
			}
			if paths, err = c.Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{}); err != nil {
				t.Fatal(err)
			}
			wantPackage(t, paths[0])
			if err := os.WriteFile(paths[0], damaged, 0o644); err != nil {
				t.Fatal(err)
			}
			a.Close()
			_, err = c.Fetch(t.Context(), []Package{hello(suite)}, progress.Silent{})
			if err == nil || !strings.Contains(err.Error(), "hello 2.10-5 amd64") {
				t.Errorf("without a mirror: %v", err)
			}
			wantNothing(t, c)
		})
	}
}
