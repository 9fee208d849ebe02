package qemutests

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/builder"
	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
	"allotment/qemu-tests/vm"
)

// clubImage builds a developer image of the garden club with these modules of its.
func clubImage(t *testing.T, arch image.Arch, modules []string) string {
	t.Helper()
	return clubImageWith(t, arch, modules, func(*profile.Profile) {})
}

// clubImageWith is such an image whose profile is changed.
func clubImageWith(t *testing.T, arch image.Arch, modules []string, change func(*profile.Profile)) string {
	t.Helper()
	return imageOf(t, "garden-club", arch, func(p *profile.Profile) {
		change(p)
		p.ModuleNames = modules
		p.Modules = slices.DeleteFunc(p.Modules, func(m *profile.ModuleSpec) bool { return !slices.Contains(modules, m.Name) })
	})
}

// imageOf builds a changed profile for developers, whose boxes their VM's port can be asked for everything.
func imageOf(t *testing.T, name string, arch image.Arch, change func(*profile.Profile)) string {
	t.Helper()
	needMachines(t)
	source, err := builder.FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(string(source), "profiles", name+".toml")
	p, err := profile.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Read(strings.TrimSuffix(file, ".toml") + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	p.Name, p.Channel, p.Developer, p.Outputs = name+"-developer", "candidate", true, []string{"qcow2"}
	change(p)
	dir, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := testKeys(context.Background(), dir, "keys")
	if err != nil {
		t.Fatal(err)
	}
	result, err := builder.Build(t.Context(), builder.Options{Profile: p, Lock: l, Source: source, Arch: arch,
		Keys: keys, Out: dir.Path("qemu-tests", "out"), Cache: dir, Progress: progress.Silent{}})
	if err != nil {
		t.Fatal(err)
	}
	path, err := result.Image("qcow2")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// bootImage boots a machine and waits until its modules are ready.
func bootImage(t *testing.T, path string, o vm.Options) *vm.VM {
	t.Helper()
	root := toolRoot(t)
	o.Dir = t.TempDir()
	o.Tools = root.With(filepath.Dir(path), o.Dir)
	o.Disk, o.DiskSize = path, cmp.Or(o.DiskSize, diskSize)
	if o.Firmware == "" && o.Arch.BootsBIOS() {
		o.Firmware = vm.BIOS // which is up sooner
	}
	m := start(t, o)
	mustBeReady(t, m)
	return m
}

// showLogs shows what services said last, if the test has failed. It is deferred: at a cleanup the box cannot be asked any more.
func showLogs(t *testing.T, m *vm.VM) {
	if !t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), vm.Patience(20*time.Second))
	defer cancel()
	modules, err := m.API().Modules(ctx)
	if err != nil {
		t.Log(err)
	}
	for _, module := range modules {
		for line, err := range m.API().Logs(ctx, api.LogQuery{Module: module.Name, Lines: 20}) {
			if err != nil {
				t.Log(err)
				break
			}
			t.Logf("%s.%s: %s", line.Module, line.Service, line.Text)
		}
	}
}

// mustBeReady waits for the end of a boot.
func mustBeReady(t *testing.T, m *vm.VM) {
	t.Helper()
	line, err := m.WaitLine(t.Context(), anyOutcome)
	if err != nil {
		t.Fatal(err)
	}
	if !anyOK.MatchString(line.Text) {
		t.Fatal(line.Text)
	}
}

// accounts makes members and returns their passwords by name.
func accounts(t *testing.T, m *vm.VM, count int) map[string]string {
	t.Helper()
	passwords := map[string]string{}
	for a, err := range m.API().Provision(t.Context(), api.Provision{Users: count}) {
		if err != nil {
			t.Fatal(err)
		}
		passwords[a.Name] = a.Password
	}
	if len(passwords) != count {
		t.Fatalf("%d accounts were made, want %d", len(passwords), count)
	}
	return passwords
}

// mustRun runs all tasks of a kind that a module has, or the named ones, in that order.
func mustRun(t *testing.T, c *api.Client, kind, module string, names ...string) {
	t.Helper()
	all, err := c.Tasks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		for _, task := range all {
			if task.Module == module && task.Kind == kind {
				names = append(names, task.Name)
			}
		}
	}
	if len(names) == 0 {
		t.Errorf("module %s has no %s", module, kind)
	}
	for _, name := range names {
		if p := runTask(t, c, api.Task{Module: module, Kind: kind, Name: name}); !p.OK {
			t.Errorf("%s %s of %s: %s: %s", kind, name, module, p.Problem, p.Output)
		}
	}
}

// runTask runs a task and returns how it ended.
func runTask(t *testing.T, c *api.Client, task api.Task) (last api.Progress) {
	t.Helper()
	for p, err := range c.RunTask(t.Context(), task) {
		if err != nil {
			t.Fatal(err)
		}
		last = p
	}
	return last
}

// restart has the box end a service and start it again, and waits until it is ready.
func restart(t *testing.T, c *api.Client, module, service string) {
	t.Helper()
	before, err := c.Module(t.Context(), module)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Restart(t.Context(), module, service); err != nil {
		t.Fatal(err)
	}
	awaitNewProcess(t, c, before, service)
}

// awaitNewProcess waits until a service of the module runs as another process than before, and the module is ready.
func awaitNewProcess(t *testing.T, c *api.Client, before api.Module, service string) {
	t.Helper()
	pid := func(m api.Module) int {
		i := slices.IndexFunc(m.Services, func(s api.Service) bool { return s.Name == service })
		return m.Services[i].PID
	}
	after := uint64(0)
	for {
		now, err := c.Module(t.Context(), before.Name)
		if err != nil {
			t.Fatal(err)
		}
		if now.State == "ready" && pid(now) != pid(before) {
			return
		}
		for e, err := range c.Events(t.Context(), api.EventQuery{After: after, Follow: true}) {
			if err != nil {
				t.Fatal(err)
			}
			if after = e.Number; e.Module == before.Name {
				break
			}
		}
	}
}

// mustBeReadyAgain waits for the end of the boot after the one that mustBeReady saw.
func mustBeReadyAgain(t *testing.T, m *vm.VM) {
	t.Helper()
	seen := 0
	line, _, err := m.Wait(t.Context(), 0, func(e vm.Event) bool {
		if e.Kind == vm.Line && anyOutcome.MatchString(e.Text) {
			seen++
		}
		return seen == 2
	})
	if err != nil {
		t.Fatal(err)
	}
	if !anyOK.MatchString(line.Text) {
		t.Fatal(line.Text)
	}
}
