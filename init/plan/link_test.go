package plan

import (
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/image"
)

func service(name string, needs ...string) image.Service {
	return image.Service{Name: name, Command: []string{"/bin/" + name}, User: "root", Needs: needs}
}

func migration(volume string, format int, needs ...string) image.Migration {
	return image.Migration{
		Task: image.Task{Command: []string{"/bin/migrate"}, User: "root"}, Volume: volume, Format: format, Needs: needs,
	}
}

func module(name string, services ...image.Service) image.Module {
	return image.Module{
		Name: name, Layers: []image.Digest{"sha256:aa"}, Memory: image.Memory{Max: 64}, Services: services,
		Users: []image.User{{Name: "www-data", UID: 33, GID: 34}},
	}
}

// mustPlan plans modules that have no fault.
func mustPlan(t *testing.T, modules ...image.Module) *Plan {
	t.Helper()
	p, err := New(&image.Manifest{Modules: modules})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ids(services []*Service) string {
	var out []string
	for _, s := range services {
		out = append(out, s.ID)
	}
	return strings.Join(out, " ")
}

func wantIDs(t *testing.T, what string, got []*Service, want string) {
	t.Helper()
	if g := ids(got); g != want {
		t.Errorf("%s: %q, want %q", what, g, want)
	}
}

func migrations(all []*Migration) []*Service {
	var out []*Service
	for _, m := range all {
		out = append(out, m.Service)
	}
	return out
}

func TestNeedsAcrossModules(t *testing.T) {
	p := mustPlan(t,
		module("web", service("page", "php", "chat.server"), service("php")),
		module("chat", service("bot", "web.page"), service("server")))
	wantIDs(t, "all", p.Services(), "web.php chat.server web.page chat.bot")
	wantIDs(t, "web", p.Modules[0].Services, "web.php web.page")
	wantIDs(t, "what page requires", p.Module("web").Service("page").Requires, "web.php chat.server")
}

func TestLDAP(t *testing.T) {
	m := module("web", service("page"), service("php"))
	m.LDAP = &image.LDAP{Read: []string{"people"}, Probe: true}
	m.Peers = []image.Peer{{Module: "directory", Ports: []int{8080}}}
	p := mustPlan(t, m, module("directory", service("slapd"), service("sync", "slapd")))
	wantIDs(t, "all", p.Services(), "directory.slapd directory.sync web.page web.php")
	web := p.Module("web")
	if len(web.Peers) != 1 || web.Peers[0].Module.Name != Directory || !slices.Equal(web.Peers[0].Ports, []int{8080, 389}) {
		t.Errorf("peers: %+v", web.Peers)
	}
	if len(web.Secrets) != 2 || web.Secrets[0].Name != "ldap" || web.Secrets[1].Name != "probe" || web.Secrets[0].UID != 0 {
		t.Errorf("secrets: %+v", web.Secrets)
	}
	m.LDAP = nil
	if web := mustPlan(t, m, module("directory", service("slapd"))).Module("web"); len(web.Secrets) != 0 ||
		!slices.Equal(web.Peers[0].Ports, []int{8080}) || len(web.Services[0].Requires) != 0 {
		t.Errorf("without an account: %+v", web)
	}
}

func TestMigrationsAmongServices(t *testing.T) {
	m := module("web", service("page", "php"), service("php", "db"), service("db"))
	m.Volumes = []image.Volume{
		{Name: "files", Path: "/srv", User: "root", Format: 1}, {Name: "db", Path: "/db", User: "root", Format: 3},
	}
	m.Migrations = []image.Migration{
		migration("db", 3), migration("db", 2, "php"), migration("db", 1), migration("files", 1),
	}
	p := mustPlan(t, m)
	web := p.Module("web")
	all := migrations(web.Migrations)
	wantIDs(t, "migrations", all, "web.migrate-db-1 web.migrate-files-1 web.migrate-db-2 web.migrate-db-3")
	if got := web.Migrations[2]; got.Volume != "db" || got.Format != 2 || got.Cgroup != "/allotment/web/migrate-db-2" ||
		got.Timeout != 5*time.Minute {
		t.Errorf("migration: %+v", got)
	}
	wantIDs(t, "third requires", all[2].Requires, "web.php")
	wantIDs(t, "fourth requires what those before it do", all[3].Requires, "web.php")
	wantIDs(t, "fourth is after", migrations(all[3].After), ids(all[:3]))
	for name, want := range map[string]string{ // db is needed by the third, through php
		"db": ids(all[:2]), "php": ids(all[:2]), "page": ids(all),
	} {
		wantIDs(t, name+" is after", migrations(web.Service(name).After), want)
	}
	wantIDs(t, "all", p.Services(), "web.db web.php web.page")
}

func TestTask(t *testing.T) {
	p := mustPlan(t, module("web", service("page")))
	s, err := Task(p.Modules[0], "journey-post-2", &image.Task{
		Command: []string{"/bin/post", "x"}, User: "www-data", Env: []string{"A=1"}, Tmpfs: []string{"/tmp"}, Timeout: 7,
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.ID != "web.task-journey-post-2" || s.Cgroup != "/allotment/web/task-journey-post-2" || s.UID != 33 || s.GID != 34 ||
		s.Timeout != 7*time.Second || s.MemoryMax != 64<<20 || s.Ready.TCP != 0 || s.Live != nil {
		t.Errorf("task: %+v", s)
	}
	good := image.Task{Command: []string{"/bin/a"}, User: "root"}
	if s, err := Task(p.Modules[0], "a", &good); err != nil || s.Timeout != 5*time.Minute {
		t.Errorf("default: %+v, %v", s, err)
	}
	for _, name := range []string{"", "a/b", "../x", "A", strings.Repeat("a", 101)} {
		if _, err := Task(p.Modules[0], name, &good); err == nil {
			t.Errorf("task %q was accepted", name)
		}
	}
	if _, err := Task(p.Modules[0], "a", &image.Task{Command: []string{"a"}, User: "root"}); err == nil {
		t.Error("a task without an absolute command was accepted")
	}
}

func TestDefaultsOfServices(t *testing.T) {
	m := module("web", service("page"), service("php"))
	m.Services[0].Live = &image.Check{TCP: 80}
	m.Services[1] = image.Service{
		Name: "php", Command: []string{"/php"}, User: "root", Memory: 32, StopTimeout: 5, Reload: "SIGHUP", Stop: "SIGQUIT",
		Live: &image.Check{TCP: 90, Timeout: 1, Every: 2, Failures: 4}, Ready: &image.Check{TCP: 90, Timeout: 9},
	}
	m.Volumes = []image.Volume{{Name: "a", Path: "/a", User: "root"}, {Name: "b", Path: "/b", User: "root", Quota: 7, NoCOW: true}}
	m.Templates = []image.Template{
		{Name: "all.conf", Text: "x", User: "www-data"}, {Name: "php.ini", User: "root", Services: []string{"php"}},
	}
	m.Secrets = []image.Secret{{Name: "key", Kind: "hex", User: "www-data"}}
	w := mustPlan(t, m).Module("web")
	if w.CPUWeight != 100 || w.IOWeight != 100 || w.OOMScore != 200 || w.Declared.Name != "web" {
		t.Errorf("module: %+v", w)
	}
	page, php := w.Service("page"), w.Service("php")
	if page.StopTimeout != 20*time.Second || page.MemoryMax != 64<<20 || page.Reload != "" || page.Timeout != 0 ||
		page.Live.Timeout != 10 || page.Live.Every != 30 || page.Live.Failures != 3 || m.Services[0].Live.Every != 0 {
		t.Errorf("page: %+v, %+v", page, page.Live)
	}
	if php.StopTimeout != 5*time.Second || php.MemoryMax != 32<<20 || php.Reload != "SIGHUP" || php.Stop != "SIGQUIT" ||
		php.Live.Timeout != 1 || php.Live.Every != 2 || php.Live.Failures != 4 || php.Ready.Timeout != 9 {
		t.Errorf("php: %+v, %+v", php, php.Live)
	}
	if w.Volumes[0].Quota != 1<<30 || w.Volumes[1].Quota != 7<<20 || !w.Volumes[1].NoCOW || w.Volumes[0].NoCOW {
		t.Errorf("volumes: %+v", w.Volumes)
	}
	if a, b := w.Templates[0], w.Templates[1]; a.UID != 33 || a.GID != 34 || a.Text != "x" {
		t.Errorf("template: %+v", a)
	} else {
		wantIDs(t, "all.conf", a.For, "web.page web.php")
		wantIDs(t, "php.ini", b.For, "web.php")
	}
	if s := w.Secrets[0]; s.UID != 33 || s.GID != 34 || s.Kind != "hex" {
		t.Errorf("secret: %+v", s)
	}
}

func TestRefusedLinks(t *testing.T) {
	volume := []image.Volume{{Name: "v", Path: "/v", User: "root", Format: 1}}
	for name, breakIt := range map[string]func(web, chat *image.Module){
		"circle: web.page -> chat.server -> web.page": func(web, chat *image.Module) {
			web.Services[0].Needs, chat.Services[0].Needs = []string{"chat.server"}, []string{"web.page"}
		},
		"circle: web.page -> web.migrate-v-1 -> chat.server -> chat.migrate-v-1 -> web.page": func(web, chat *image.Module) {
			// page would wait for the migration, were it not needed by it
			web.Volumes, web.Migrations = volume, []image.Migration{migration("v", 1, "chat.server")}
			chat.Volumes, chat.Migrations = volume, []image.Migration{migration("v", 1, "web.page")}
			chat.Services[0].Needs = nil
			web.Services[0].Needs = nil
		},
		`needs "chat.ghost"`:      func(web, chat *image.Module) { web.Services[0].Needs = []string{"chat.ghost"} },
		`needs "mail.server"`:     func(web, chat *image.Module) { web.Services[0].Needs = []string{"mail.server"} },
		`peer "mail"`:             func(web, chat *image.Module) { web.Peers = []image.Peer{{Module: "mail"}} },
		`peer "web"`:              func(web, chat *image.Module) { web.Peers = []image.Peer{{Module: "web"}} },
		`account in module "dire`: func(web, chat *image.Module) { web.LDAP = &image.LDAP{} },
		`directory", which is`:    func(web, chat *image.Module) { web.Name, web.LDAP = "directory", &image.LDAP{} },
		`secret "ldap": another`: func(web, chat *image.Module) {
			web.LDAP, web.Secrets = &image.LDAP{}, []image.Secret{{Name: "ldap", User: "root"}}
		},
		`secret "../x": the name`:  func(web, chat *image.Module) { web.Secrets = []image.Secret{{Name: "../x", User: "root"}} },
		`secret "x": the module's`: func(web, chat *image.Module) { web.Secrets = []image.Secret{{Name: "x", User: "ghost"}} },
		`template "../x": the name`: func(web, chat *image.Module) {
			web.Templates = []image.Template{{Name: "../x", User: "root"}}
		},
		`template "x": another`: func(web, chat *image.Module) {
			web.Templates = []image.Template{{Name: "x", User: "root"}, {Name: "x", User: "root"}}
		},
		`template "x": no service "ghost"`: func(web, chat *image.Module) {
			web.Templates = []image.Template{{Name: "x", User: "root", Services: []string{"ghost"}}}
		},
		`template "x": the module's`: func(web, chat *image.Module) { web.Templates = []image.Template{{Name: "x", User: "y"}} },
		"has format 1, but":          func(web, chat *image.Module) { web.Volumes = volume },
		"of a volume that is not": func(web, chat *image.Module) {
			web.Migrations = []image.Migration{migration("v", 1)}
		},
		"no single migration": func(web, chat *image.Module) {
			web.Volumes, web.Migrations = volume, []image.Migration{migration("v", 1), migration("v", 1)}
		},
		`needs "ghost"`: func(web, chat *image.Module) {
			web.Volumes, web.Migrations = volume, []image.Migration{migration("v", 1, "ghost")}
		},
		`volume "w" at "/v": another`: func(web, chat *image.Module) {
			web.Volumes = []image.Volume{{Name: "v", Path: "/v", User: "root"}, {Name: "w", Path: "/v", User: "root"}}
		},
		`"chat": module "web" has port tcp 25 already`: func(web, chat *image.Module) {
			web.Ports = []image.Port{{Port: 25, Expose: "lan"}}
			chat.Ports = []image.Port{{Port: 25, Protocol: "tcp", Expose: "public"}}
		},
		`"chat": module "web" has path /a already`: func(web, chat *image.Module) {
			web.HTTP, chat.HTTP = &image.HTTP{Path: "/a"}, &image.HTTP{Path: "/b", Also: []string{"/a"}}
		},
		`format 1: the command`: func(web, chat *image.Module) {
			web.Volumes, web.Migrations = volume, []image.Migration{{Volume: "v", Format: 1}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			web, chat := module("web", service("page")), module("chat", service("server"))
			if p := mustPlan(t, web, chat); len(p.Services()) != 2 {
				t.Fatalf("without the fault: %s", ids(p.Services()))
			}
			breakIt(&web, &chat)
			p, err := New(&image.Manifest{Modules: []image.Module{web, chat}})
			if p != nil || err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v does not say %q", err, name)
			}
		})
	}
}

func TestPortsThatDoNotClash(t *testing.T) {
	web, chat := module("web", service("page")), module("chat", service("server"))
	web.Ports = []image.Port{{Port: 25, Expose: "none"}, {Port: 53, Expose: "lan"}}
	chat.Ports = []image.Port{{Port: 25, Expose: "public"}, {Port: 53, Protocol: "udp", Expose: "lan"}}
	mustPlan(t, web, chat)
}
