package container

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"allotment/image"
	"allotment/init/plan"
)

func service(t *testing.T, change func(*image.Module)) *plan.Service {
	t.Helper()
	m := image.Module{
		Name: "web", Layers: []image.Digest{"sha256:aa"}, Memory: image.Memory{Max: 64},
		Users:    []image.User{{Name: "www-data", UID: 33, GID: 34}},
		Services: []image.Service{{Name: "page", Command: []string{"/bin/page", "-x"}, User: "www-data", Tmpfs: []string{"/tmp", "/run/page"}}},
		Volumes:  []image.Volume{{Name: "content", Path: "/srv", Class: "content", User: "www-data"}},
	}
	if change != nil {
		change(&m)
	}
	p, err := plan.New(&image.Manifest{Modules: []image.Module{m}})
	if err != nil {
		t.Fatal(err)
	}
	return p.Modules[0].Services[0]
}

var somewhere = places{
	root: "/r", network: "/n", resolv: "/resolv", hosts: "/hosts", config: "/config", secrets: "/secrets",
	volumes: map[string]string{"content": "/v"},
}

// faults are the ways in which a container would have more rights than its module declares.
func faults(s *specs.Spec) []string {
	var out []string
	check := func(ok bool, what string) {
		if !ok {
			out = append(out, what)
		}
	}
	check(s.Process.NoNewPrivileges, "it can gain privileges")
	check(s.Root.Readonly, "its root is writable")
	check(len(s.Process.Capabilities.Bounding) == 0 && len(s.Process.Capabilities.Effective) == 0, "it has capabilities")
	check(len(s.Linux.Namespaces) == 7, "it shares a namespace with the host")
	check(s.Linux.UIDMappings[0].HostID >= plan.IDs && s.Linux.UIDMappings[0].Size == plan.IDs, "its ids are the host's")
	check(s.Linux.GIDMappings[0] == s.Linux.UIDMappings[0], "its group ids are not those of its users")
	check(s.Linux.Seccomp != nil && s.Linux.Seccomp.DefaultAction == specs.ActErrno, "it may use any system call")
	check(s.Linux.Seccomp == nil || families(s.Linux.Seccomp) == "1 2 10 16 of protocol 0", "it can have the kernel load socket families")
	check(s.Linux.Resources.Unified["memory.swap.max"] == "0" && s.Linux.Resources.Unified["memory.max"] != "", "its memory has no bound")
	check(s.Linux.Resources.Unified["pids.max"] != "", "its processes have no bound")
	check(slices.Contains(s.Linux.MaskedPaths, "/proc/kcore") && slices.Contains(s.Linux.ReadonlyPaths, "/proc/sys"), "it sees the kernel")
	for _, m := range s.Mounts {
		check(m.Destination != "/sys" && slices.Contains(m.Options, "nosuid"), "it can use "+m.Destination)
		check(slices.Contains(m.Options, "nodev") || strings.HasPrefix(m.Destination, "/dev"), "it may have devices in "+m.Destination)
	}
	return out
}

// families lists the socket families that a filter allows, or says that it allows others.
func families(filter *specs.LinuxSeccomp) string {
	var all []string
	for _, r := range filter.Syscalls {
		switch {
		case !slices.Contains(r.Names, "socket"):
		case len(r.Args) == 1 && r.Args[0].Index == 0 && r.Args[0].Op == specs.OpEqualTo:
			all = append(all, strconv.FormatUint(r.Args[0].Value, 10))
		case len(r.Args) == 2 && r.Args[0].Value == 16 && r.Args[1] == specs.LinuxSeccompArg{Index: 2, Op: specs.OpEqualTo}:
			all = append(all, "16 of protocol 0")
		default:
			return "others"
		}
	}
	return strings.Join(all, " ")
}

func TestContainersHaveNoMoreRightsThanDeclared(t *testing.T) {
	s, err := newSpec(service(t, nil), somewhere)
	if err != nil {
		t.Fatal(err)
	}
	if f := faults(s); f != nil {
		t.Errorf("%q", f)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"capabilities":{`) {
		t.Error("crun would keep all capabilities: the object that lists none is not there")
	}

	// The twins: each weakening is seen.
	for name, weaken := range map[string]func(*specs.Spec){
		"privileges": func(s *specs.Spec) { s.Process.NoNewPrivileges = false },
		"writable":   func(s *specs.Spec) { s.Root.Readonly = false },
		"capabil":    func(s *specs.Spec) { s.Process.Capabilities.Bounding = []string{"CAP_SYS_ADMIN"} },
		"namespace":  func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] },
		"host's":     func(s *specs.Spec) { s.Linux.UIDMappings[0].HostID = 0; s.Linux.GIDMappings[0].HostID = 0 },
		"group ids":  func(s *specs.Spec) { s.Linux.GIDMappings = []specs.LinuxIDMapping{{Size: 1}} },
		"system":     func(s *specs.Spec) { s.Linux.Seccomp = nil },
		"families": func(s *specs.Spec) {
			s.Linux.Seccomp.Syscalls = append(s.Linux.Seccomp.Syscalls, specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActAllow})
		},
		"memory":    func(s *specs.Spec) { delete(s.Linux.Resources.Unified, "memory.max") },
		"processes": func(s *specs.Spec) { delete(s.Linux.Resources.Unified, "pids.max") },
		"kernel":    func(s *specs.Spec) { s.Linux.MaskedPaths = nil },
		"use /proc": func(s *specs.Spec) { s.Mounts[0].Options = nil },
	} {
		s, err := newSpec(service(t, nil), somewhere)
		if err != nil {
			t.Fatal(err)
		}
		weaken(s)
		if f := strings.Join(faults(s), ", "); !strings.Contains(f, name) {
			t.Errorf("%s is not noticed: %q", name, f)
		}
	}
}

func allowed(s *specs.Spec, call string) bool {
	return slices.ContainsFunc(s.Linux.Seccomp.Syscalls, func(r specs.LinuxSyscall) bool {
		return r.Action == specs.ActAllow && len(r.Args) == 0 && slices.Contains(r.Names, call)
	})
}

func TestSystemCallsFollowCapabilities(t *testing.T) {
	bare, err := newSpec(service(t, nil), somewhere)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := newSpec(service(t, func(m *image.Module) { m.Services[0].Capabilities = []string{"CAP_SYS_ADMIN"} }), somewhere)
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []string{"mount", "setns", "bpf"} {
		if allowed(bare, call) || !allowed(admin, call) {
			t.Errorf("%s: allowed without the capability: %v, with it: %v", call, allowed(bare, call), allowed(admin, call))
		}
	}
	if !allowed(bare, "read") || len(bare.Linux.Seccomp.Architectures) != 1 {
		t.Errorf("architectures %v", bare.Linux.Seccomp.Architectures)
	}
	if len(admin.Process.Capabilities.Ambient) != 1 {
		t.Error("a service that does not run as root would not have its capability")
	}
}

func TestMountsBelongToTheService(t *testing.T) {
	s, err := newSpec(service(t, nil), somewhere)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range s.Mounts {
		got[m.Destination] = m.Type + " " + m.Source + " " + strings.Join(m.Options, ",")
	}
	for at, want := range map[string]string{
		"/run/page":        "tmpfs tmpfs nosuid,nodev,noexec,mode=0755,size=67108864,uid=33,gid=34",
		"/tmp":             "tmpfs tmpfs nosuid,nodev,noexec,mode=1777,size=67108864,uid=33,gid=34",
		"/srv":             "bind /v bind,rw,nosuid,nodev,noexec",
		"/etc/resolv.conf": "bind /resolv bind,ro,nosuid,nodev,noexec",
		"/etc/hosts":       "bind /hosts bind,ro,nosuid,nodev,noexec",
	} {
		if got[at] != want {
			t.Errorf("%s: %q", at, got[at])
		}
	}
}

func TestConfigAndSecretsLieOverFoldersInMemory(t *testing.T) {
	order := func(change func(*image.Module)) (at []string) {
		s, err := newSpec(service(t, change), somewhere)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range s.Mounts {
			if strings.HasPrefix(m.Destination, "/run") {
				at = append(at, m.Destination+" "+m.Source)
			}
			if m.Destination == configAt && !slices.Contains(m.Options, "ro") {
				t.Error("a service could change what was rendered")
			}
		}
		return at
	}
	got := order(func(m *image.Module) {
		m.Services[0].Tmpfs = []string{"/run"}
		m.Templates = []image.Template{{Name: "page.conf", User: "www-data"}}
		m.Secrets = []image.Secret{{Name: "key", Kind: "hex", User: "www-data"}}
	})
	if want := []string{"/run tmpfs", "/run/config /config", "/run/secrets /secrets"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := order(func(m *image.Module) { m.Services[0].Tmpfs = nil }); got != nil {
		t.Errorf("a module without templates and secrets has %q", got)
	}
}

func TestLimitsAreThoseOfTheDeclaration(t *testing.T) {
	s, err := newSpec(service(t, func(m *image.Module) { m.Services[0].Memory, m.OOM = 48, 700 }), somewhere)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Linux.Resources.Unified["memory.max"]; got != "50331648" {
		t.Errorf("memory.max is %s", got)
	}
	if got := *s.Process.OOMScoreAdj; got != 700 {
		t.Errorf("oom_score_adj is %d", got)
	}
}

func TestMountPointsOfTasks(t *testing.T) {
	m := service(t, func(m *image.Module) {
		task := func(dir string) image.Task {
			return image.Task{Command: []string{"/bin/x"}, User: "www-data", Tmpfs: []string{dir}}
		}
		step, dump := task("/c"), task("/d")
		m.Volumes[0].Format = 1
		m.Migrations = []image.Migration{{Task: task("/a"), Volume: "content", Format: 1}}
		m.Repairs = []image.Repair{{Task: task("/b"), Name: "mend"}}
		m.Journeys = []image.Journey{{Name: "read", Steps: []image.Step{{TCP: 80}, {Task: &step}}}}
		m.Backup = &image.Backup{Dump: &dump}
	}).Module
	points := mountPoints(m)
	for _, p := range []string{"/a/", "/b/", "/c/", "/d/", "/tmp/", "/run/page/"} {
		if !slices.Contains(points, p) {
			t.Errorf("there is no mount point %s in %q", p, points)
		}
	}
}
