package profile

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// classes say how a volume is treated by backup, updates and moves.
var classes = []string{"content", "config", "secret", "cache", "index", "federated"}

// signals are those that daemons are stopped by.
var signals = []string{"SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGKILL"}

// capabilities are those of capabilities(7) that a service may ask for: none that reaches beyond its container.
var capabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK",
	"CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
	"CAP_SYS_CHROOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
}

var (
	envForm     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=[^\x00]*$`)
	httpForm    = regexp.MustCompile(`^:([0-9]{1,5})(/[!-~]*)$`)
	licenceForm = regexp.MustCompile(`^[A-Za-z0-9.+() -]+$`) // SPDX 2.3, annex D
)

func checkModule(d *document, m *ModuleSpec, folder string, a Accounts, known bool) {
	d.format(m.Format)
	if d.name("name", m.Name, nameForm) && m.Name != folder {
		d.fault("name", fmt.Sprintf("write name = %q or rename the folder", folder), "name is %q in folder %q", m.Name, folder)
	}
	d.filled("title", m.Title)
	d.choice("importance", orDefault(m.Importance, "normal"), "core", "normal", "optional")
	if !licenceForm.MatchString(m.Licence) {
		d.fault("licence", "want an SPDX expression, such as BSD-2-Clause", "licence %q is not usable", m.Licence)
	}
	d.number("memory.max", m.Memory.Max, 1, maxDisk)
	d.number("pids", m.PIDs, 0, 1<<15)
	if m.HTTP != nil {
		d.port("http.port", m.HTTP.Port)
		if !strings.HasPrefix(m.HTTP.Path, "/") || path.Clean(m.HTTP.Path) != m.HTTP.Path {
			d.fault("http.path", `want a path such as "/" or "/wiki"`, "path %q is not usable", m.HTTP.Path)
		}
	}
	if len(m.Services) == 0 {
		d.fault("service", "add a [[service]]", "a module needs at least one service")
	}
	c := moduleCheck{d: d, m: m, accounts: a, known: known}
	c.volumes()
	c.services()
}

// moduleCheck checks the parts of one module.
type moduleCheck struct {
	d        *document
	m        *ModuleSpec
	accounts Accounts
	known    bool
}

// user checks that a user is one of the tree's.
func (c *moduleCheck) user(key, name string) {
	if _, ok := c.accounts.User(name); !ok && c.known {
		c.d.fault(key, oneOf(name, userNames(c.accounts)), "no user %q in the module's tree", name)
	}
}

func (c *moduleCheck) volumes() {
	names, paths := once{}, once{}
	for i, v := range c.m.Volumes {
		key := item("volume", i)
		c.d.name(key+".name", v.Name, nameForm)
		names.add(c.d, key+".name", v.Name)
		if c.mountPoint(key+".path", v.Path) {
			paths.add(c.d, key+".path", v.Path)
		}
		for _, w := range c.m.Volumes[:i] {
			if inside(v.Path, w.Path) || inside(w.Path, v.Path) {
				c.d.fault(key+".path", "make them neighbours", "volume %q overlaps volume %q at %q", v.Name, w.Name, w.Path)
			}
		}
		c.d.choice(key+".class", v.Class, classes...)
		c.user(key+".user", v.User)
	}
}

// inside tells whether p is below folder.
func inside(p, folder string) bool { return strings.HasPrefix(p, folder+"/") }

// mountPoint checks a path that something is mounted at: not where the runtime has its own mounts.
func (c *moduleCheck) mountPoint(key, p string) bool {
	if !c.d.path(key, p) {
		return false
	}
	if strings.Contains(p, ":") {
		c.d.fault(key, "", "%q has a colon, which overlayfs cannot have in paths", p)
		return false
	}
	for _, taken := range []string{"/proc", "/sys", "/dev"} {
		if p == taken || inside(p, taken) {
			c.d.fault(key, "", "%q is the runtime's own", p)
			return false
		}
	}
	return true
}

func (c *moduleCheck) services() {
	names := once{}
	for i := range c.m.Services {
		key := item("service", i)
		s := &c.m.Services[i]
		c.d.name(key+".name", s.Name, nameForm)
		names.add(c.d, key+".name", s.Name)
		if len(s.Command) == 0 {
			c.d.missing(key+".command", `write, for instance, command = ["/usr/sbin/nginx", "-e", "stderr"]`)
		} else {
			c.d.path(key+".command[0]", s.Command[0])
		}
		c.user(key+".user", s.User)
		c.environment(key, s.Env)
		unique(c.d, key+".tmpfs", s.Tmpfs)
		for j, p := range s.Tmpfs {
			c.tmpfs(item(key+".tmpfs", j), p)
		}
		if s.Stop != "" {
			c.d.choice(key+".stop", s.Stop, signals...)
		}
		for j, name := range s.Capabilities {
			c.d.choice(item(key+".capabilities", j), name, capabilities...)
		}
		unique(c.d, key+".capabilities", s.Capabilities)
		c.ready(key, i)
	}
	c.needs()
}

func (c *moduleCheck) environment(key string, env []string) {
	seen := once{}
	for i, e := range env {
		if !envForm.MatchString(e) {
			c.d.fault(item(key+".env", i), "want NAME=value", "environment variable %q is not usable", e)
		}
		name, _, _ := strings.Cut(e, "=")
		seen.add(c.d, item(key+".env", i), name)
	}
}

// tmpfs checks that a folder in memory does not hide a volume.
func (c *moduleCheck) tmpfs(key, p string) {
	if !c.mountPoint(key, p) {
		return
	}
	for _, v := range c.m.Volumes {
		if p == v.Path || inside(v.Path, p) && path.Clean(v.Path) == v.Path {
			c.d.fault(key, "", "tmpfs %q hides volume %q at %q", p, v.Name, v.Path)
		}
	}
}

func (c *moduleCheck) ready(service string, i int) {
	r, key := c.m.Services[i].Ready, service+".ready"
	if r == nil {
		return
	}
	if (r.TCP != 0) == (r.HTTP != "") {
		c.d.fault(key, "give just one of tcp and http", "a check asks one question")
		return
	}
	if r.TCP != 0 {
		c.d.port(key+".tcp", r.TCP)
	} else if m := httpForm.FindStringSubmatch(r.HTTP); m == nil {
		c.d.fault(key+".http", `want port and path, such as ":8080/"`, "check %q is not usable", r.HTTP)
	} else {
		var port int
		fmt.Sscan(m[1], &port) // digits alone, by the pattern
		c.d.port(key+".http", port)
	}
	c.d.number(key+".timeout", r.Timeout, 0, 3600)
}

// needs checks that services need only services of the module, and not each other in a circle.
func (c *moduleCheck) needs() {
	needs := map[string][]string{}
	var names []string
	for _, s := range c.m.Services {
		needs[s.Name] = s.Needs
		names = append(names, s.Name)
	}
	for i, s := range c.m.Services {
		for j, n := range s.Needs {
			if !slices.Contains(names, n) {
				c.d.fault(item(item("service", i, "needs"), j), oneOf(n, names), "no service %q in this module", n)
			}
		}
		if way := circle(s.Name, needs); way != nil && slices.Min(way) == s.Name {
			c.d.fault(item("service", i, "needs"), "take one of them out", "services need each other in a circle: %s",
				strings.Join(append(way, s.Name), " -> "))
		}
	}
}

// circle returns a way along needs that leads from a service back to it, or nil.
func circle(start string, needs map[string][]string) []string {
	seen := map[string]bool{}
	var walk func(at string, way []string) []string
	walk = func(at string, way []string) []string {
		way = append(slices.Clone(way), at)
		for _, n := range needs[at] {
			if n == start {
				return way
			}
			if !seen[n] {
				seen[n] = true
				if found := walk(n, way); found != nil {
					return found
				}
			}
		}
		return nil
	}
	return walk(start, nil)
}
