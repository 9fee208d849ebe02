package plan

import (
	"strings"
	"testing"

	"allotment/image"
)

func web() image.Module {
	return image.Module{
		Name: "web", Layers: []image.Digest{"sha256:aa"}, Memory: image.Memory{Max: 64},
		Users: []image.User{{Name: "www-data", UID: 33, GID: 33}},
		Services: []image.Service{
			{Name: "page", Command: []string{"/usr/sbin/nginx"}, User: "www-data", Needs: []string{"data"}},
			{Name: "data", Command: []string{"/usr/bin/data"}, User: "root"},
		},
		Volumes: []image.Volume{{Name: "content", Path: "/srv", Class: "content", User: "www-data"}},
	}
}

func mail() image.Module {
	m := web()
	m.Name, m.Importance, m.PIDs = "mail", "core", 10
	return m
}

func TestModulesGetDistinctShares(t *testing.T) {
	p, err := New(&image.Manifest{Modules: []image.Module{web(), mail()}})
	if err != nil {
		t.Fatal(err)
	}
	a, b := p.Modules[0], p.Modules[1]
	if a.IPv4.String() != "10.209.0.2/16" || b.IPv4.String() != "10.209.0.3/16" ||
		a.IPv6.String() != "fd00:a110::2/64" || b.IPv6.String() != "fd00:a110::3/64" {
		t.Errorf("addresses: %v %v %v %v", a.IPv4, b.IPv4, a.IPv6, b.IPv6)
	}
	if b.FirstID-a.FirstID != IDs || a.FirstID < IDs {
		t.Errorf("id ranges start at %d and %d", a.FirstID, b.FirstID)
	}
	if a.Importance != Normal || b.Importance != Core || a.PIDsMax != 256 || b.PIDsMax != 10 || a.MemoryMax != 64<<20 {
		t.Errorf("defaults: %+v %+v", a, b)
	}
	if got := a.Services[0].ID + " " + a.Services[1].ID; got != "web.data web.page" {
		t.Errorf("order of services: %s", got)
	}
	s := a.Services[1]
	if s.UID != 33 || s.Stop != "SIGTERM" || s.Ready.Timeout != 60 || s.Cgroup != "/allotment/web/page" {
		t.Errorf("service: %+v", s)
	}
	if v := a.Volumes[0]; v.Name != "content" || v.Path != "/srv" || v.UID != 33 {
		t.Errorf("volume: %+v", v)
	}
	if n := len(p.Services()); n != 4 {
		t.Errorf("%d services in all", n)
	}
}

func TestRefusals(t *testing.T) {
	for name, breakIt := range map[string]func(m *image.Module){
		"the name must be": func(m *image.Module) { m.Name = "../etc" },
		"no layer":         func(m *image.Module) { m.Layers = nil },
		"no memory limit":  func(m *image.Module) { m.Memory.Max = 0 },
		"no service":       func(m *image.Module) { m.Services = nil },
		"in a circle":      func(m *image.Module) { m.Services[1].Needs = []string{"page"} },
		"not there":        func(m *image.Module) { m.Services[1].Needs = []string{"ghost"} },
		"shares its name":  func(m *image.Module) { m.Services[0] = m.Services[1] },
		"no user":          func(m *image.Module) { m.Services[0].User = "nobody" },
		"outside 0 to":     func(m *image.Module) { m.Users[0].UID = IDs },
		"absolute path":    func(m *image.Module) { m.Services[0].Command = []string{"nginx"} },
		"names that begin": func(m *image.Module) { m.Services[0].Name = "task-a" },
		"clean absolute":   func(m *image.Module) { m.Services[0].Tmpfs = []string{"/run/../etc"} },
		"not allowed":      func(m *image.Module) { m.Volumes[0].Path = "srv" },
		"volume":           func(m *image.Module) { m.Volumes[0].User = "ghost" },
		"no such":          func(m *image.Module) { m.Importance = "vital" },
	} {
		t.Run(name, func(t *testing.T) {
			m := web()
			breakIt(&m)
			_, err := New(&image.Manifest{Modules: []image.Module{m}})
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v does not say %q", err, name)
			}
		})
	}
	if _, err := New(&image.Manifest{Modules: []image.Module{web(), web()}}); err == nil {
		t.Error("two modules of one name were accepted")
	}
	if _, err := New(&image.Manifest{Modules: make([]image.Module, MaxModules+1)}); err == nil {
		t.Error("more modules than addresses were accepted")
	}
}

// What an earlier supervisor has begun is found by the name of its control group; services are not.
func TestLeftover(t *testing.T) {
	p, err := New(&image.Manifest{Modules: []image.Module{web()}})
	if err != nil {
		t.Fatal(err)
	}
	m := p.Modules[0]
	task, err := Task(m, "backup-dump", &image.Task{Command: []string{"/bin/true"}, User: m.Declared.Users[0].Name})
	if err != nil {
		t.Fatal(err)
	}
	s, ok := Leftover(m, task.Name)
	if !ok || s.ID != task.ID || s.Cgroup != task.Cgroup || s.Module != m {
		t.Errorf("%+v, want what ends %+v", s, task)
	}
	if _, ok := Leftover(m, m.Services[0].Name); ok {
		t.Error("a service counts as a task")
	}
}
