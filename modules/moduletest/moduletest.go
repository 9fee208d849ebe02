// Package moduletest runs modules' real programs on the host that tests run on, without a machine: it makes a module's
// tree as the builder does, unpacks it, renders the templates and secrets by the device's own code, and starts commands
// in the tree, by way of the tool root. There is no supervisor, so no sandbox and no network of a module's own.
package moduletest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"allotment/builder"
	"allotment/builder/apt"
	"allotment/builder/deb"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/builder/rootfs"
	"allotment/builder/tools"
	"allotment/image"
	"allotment/init/plan"
	"allotment/init/render"
	"allotment/init/secret"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

// Main is what TestMain calls.
func Main(m *testing.M) {
	tools.EnterIfAsked()
	os.Exit(m.Run())
}

// Organisation is the one that templates are rendered for.
var Organisation = image.Organisation{Name: "Garden Club Ashwell", Domain: "ashwell.example", Language: "en", TimeZone: "Europe/London"}

// Box is modules that know each other as on one box.
type Box struct {
	t       testing.TB
	source  string
	specs   map[string]*profile.ModuleSpec
	plan    *plan.Plan
	secrets map[string]map[string]secret.Value
}

// New plans the named modules of this source folder together, and makes their secrets.
func New(t testing.TB, names ...string) *Box {
	t.Helper()
	if testing.Short() {
		t.Skip("runs real programs: not in -short mode")
	}
	source, err := builder.FindSource(".")
	must(t, err)
	b := &Box{t: t, source: string(source), specs: map[string]*profile.ModuleSpec{}, secrets: map[string]map[string]secret.Value{}}
	var m image.Manifest
	for _, name := range names {
		spec, err := profile.ReadModule(filepath.Join(b.source, "modules", name))
		must(t, err)
		b.specs[name] = spec
		declared := spec.Module
		declared.Layers = make([]image.Digest, 1)
		for _, u := range spec.Tree.Users {
			declared.Users = append(declared.Users, image.User{Name: u.Name, UID: u.UID, GID: u.UID})
		}
		m.Modules = append(m.Modules, declared)
	}
	b.plan, err = plan.New(&m)
	must(t, err)
	store, err := secret.Open(t.TempDir())
	must(t, err)
	for _, m := range b.plan.Modules {
		b.secrets[m.Name], err = store.Ensure(m, Organisation, time.Now())
		must(t, err)
	}
	return b
}

// Secret returns a module's secret.
func (b *Box) Secret(module, name string) string { return b.secrets[module][name].Reveal() }

// Declared is what the module declares.
func (b *Box) Declared(module string) *image.Module { return b.plan.Module(module).Declared }

// Service is one of a module's services.
func (b *Box) Service(module, name string) *plan.Service { return b.plan.Module(module).Service(name) }

// Repair is one of a module's repairs.
func (b *Box) Repair(module, name string) image.Repair {
	b.t.Helper()
	for _, r := range b.Declared(module).Repairs {
		if r.Name == name {
			return r
		}
	}
	b.t.Fatalf("module %q declares no repair %q", module, name)
	return image.Repair{}
}

// Module is a module's unpacked tree with its rendered files.
type Module struct {
	t    testing.TB
	box  *Box
	root string
	decl *image.Module
}

// Unpack makes the module's tree in a temporary folder, with empty volumes and folders in memory, its secrets and its
// templates, rendered as Render does.
func (b *Box) Unpack(name string, edit func(*render.Data)) *Module {
	b.t.Helper()
	m := &Module{t: b.t, box: b, root: filepath.Join(b.t.TempDir(), "root"), decl: &b.specs[name].Module}
	must(b.t, m.unpack(b.tree(name)))
	dirs := []string{"run/config", "run/secrets", "dev", "proc", "tmp"}
	for _, v := range m.decl.Volumes {
		dirs = append(dirs, v.Path)
	}
	for _, s := range m.decl.Services {
		dirs = append(dirs, s.Tmpfs...)
	}
	for _, d := range dirs {
		must(b.t, os.MkdirAll(filepath.Join(m.root, d), 0o755))
	}
	for name, s := range b.secrets[name] {
		m.Write("/run/secrets/"+name, []byte(s.Reveal()))
	}
	m.Render(name, edit)
	return m
}

// Render renders the module's templates; edit may change what they use, since here all modules have the host's address.
func (m *Module) Render(name string, edit func(*render.Data)) {
	m.t.Helper()
	planned := m.box.plan.Module(name)
	settings := map[string]any{}
	for _, s := range m.decl.Settings {
		settings[s.Name] = s.Default
	}
	data, err := render.NewData(m.box.plan, planned, Organisation, settings, m.box.secrets)
	must(m.t, err)
	if edit != nil {
		edit(&data)
	}
	files, err := render.Render(planned, data)
	must(m.t, err)
	for name, text := range files {
		m.Write("/run/config/"+name, text)
	}
}

// Empty removes all that is in a folder of the tree.
func (m *Module) Empty(path string) {
	m.t.Helper()
	dir := filepath.Join(m.root, path)
	must(m.t, os.RemoveAll(dir))
	must(m.t, os.Mkdir(dir, 0o755))
}

// Write puts a file into the tree.
func (m *Module) Write(path string, content []byte) {
	m.t.Helper()
	must(m.t, os.WriteFile(filepath.Join(m.root, path), content, 0o600))
}

// Folder is where a folder of the tree is on the host.
func (m *Module) Folder(path string) string { return filepath.Join(m.root, path) }

// Read returns a file of the tree.
func (m *Module) Read(path string) []byte {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.root, path))
	must(m.t, err)
	return b
}

// enter is a shell's command line that runs args in the tree, with the host's devices and network, as process 1 of its own
// process namespace, which a container's command is too.
func (m *Module) enter(args []string) []string {
	const script = `root=$1; shift; mount --rbind /dev "$root/dev" && mount --rbind /proc "$root/proc" &&
		exec unshare --pid --fork --kill-child chroot "$root" "$@"`
	return append([]string{"-c", script, "sh", m.root}, args...)
}

// Run runs a command in the tree to its end and returns what it printed.
func (m *Module) Run(args ...string) (string, error) {
	root, err := toolRoot()
	must(m.t, err)
	out, err := root.With(m.root).Command(m.t.Context(), "sh", m.enter(args)...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("cannot run %v: %w: %s", args, err, out)
	}
	return string(out), nil
}

// Start starts a command in the tree and waits until something accepts connections at address. Stop ends it with SIGKILL,
// and so does the test's end.
func (m *Module) Start(address string, args ...string) (stop func()) {
	m.t.Helper()
	root, err := toolRoot()
	must(m.t, err)
	var said lockedBuffer
	cmd := root.With(m.root).Command(m.t.Context(), "sh", m.enter(args)...)
	cmd.Stdout, cmd.Stderr = &said, &said
	must(m.t, cmd.Start())
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	stop = func() { cmd.Cancel(); <-ended }
	m.t.Cleanup(func() {
		stop()
		if m.t.Failed() {
			m.t.Logf("%v said: %s", args, said.String())
		}
	})
	deadline := time.Now().Add(time.Minute)
	for {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return stop
		}
		select {
		case <-ended:
			m.t.Fatalf("%v ended: %s", args, said.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%v does not listen at %s: %s", args, address, said.String())
		}
	}
}

// FreeAddress is an address of the host that nothing listens at.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

var toolRoot = sync.OnceValues(func() (*tools.Root, error) {
	dir, err := cache.Default()
	if err != nil {
		return nil, err
	}
	return tools.OpenFrom(context.Background(), dir, profile.Debian{}, progress.Silent{})
})

// unpack writes the tree into the module's folder, all of it the caller's own.
func (m *Module) unpack(tree *rootfs.Tree) error {
	if err := os.Mkdir(m.root, 0o755); err != nil {
		return err
	}
	root, err := toolRoot()
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(tree.WriteTar(w, time.Unix(1, 0))) }()
	cmd := root.With(m.root).Command(m.t.Context(), "tar", "-x", "--no-same-owner", "-C", m.root)
	cmd.Stdin = r
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot unpack the tree: %w: %s", err, out)
	}
	return nil
}

// tree makes the module's tree from the packages of the first lock that has them.
func (b *Box) tree(name string) *rootfs.Tree {
	b.t.Helper()
	ctx := b.t.Context()
	spec := b.specs[name]
	trees, err := profile.ReadTrees(b.source, spec.Tree.Base)
	must(b.t, err)
	chain, err := (&profile.Profile{Trees: trees}).Chain(&spec.Tree)
	must(b.t, err)
	l := b.lock(chain)
	arch, err := image.ParseArch(runtime.GOARCH)
	must(b.t, err)
	dir, err := cache.Default()
	must(b.t, err)
	archive := apt.New(dir, profile.Debian{}, l.Epoch)
	var tree *rootfs.Tree
	for _, decl := range chain {
		packages := l.Trees[decl.Name][arch]
		files, err := archive.Fetch(ctx, packages, progress.Silent{})
		must(b.t, err)
		debs := make([]rootfs.Deb, len(files))
		for i, p := range packages {
			tar, err := deb.DataTarCached(ctx, dir, files[i], p.SHA256)
			must(b.t, err)
			debs[i] = rootfs.Deb{Name: p.Name, Version: p.Version, DataTar: tar}
		}
		tree, err = rootfs.Build(ctx, debs, decl, tree)
		must(b.t, err)
	}
	return tree
}

// lock finds a profile's lock that has the packages of all trees.
func (b *Box) lock(chain []*profile.Tree) *lock.Lock {
	b.t.Helper()
	files, err := filepath.Glob(filepath.Join(b.source, "profiles", "*.lock"))
	must(b.t, err)
	for _, file := range files {
		l, err := lock.Read(file)
		must(b.t, err)
		if hasAll(l, chain) {
			return l
		}
	}
	b.t.Skipf("no profile has the module %q yet", chain[len(chain)-1].Name)
	return nil
}

func hasAll(l *lock.Lock, chain []*profile.Tree) bool {
	for _, t := range chain {
		if len(l.Trees[t.Name]) == 0 {
			return false
		}
	}
	return true
}

// lockedBuffer is what a running command said.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
