package profile

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"allotment/image"
)

var licenceForm = regexp.MustCompile(`^[A-Za-z0-9.+() -]+$`) // SPDX 2.3, annex D

// checkModule checks a module by itself, and reads its templates; what it has to do with others, checkTogether checks.
// Accounts are those of its tree; they are not known if a tree below has faults.
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
	checkLimits(d, m)
	checkHTTP(d, m.HTTP)
	d.choice("sso", orDefault(m.SSO, "none"), "none", "header", "basic", "oidc")
	if m.HTTP == nil && m.SSO != "" && m.SSO != "none" {
		d.fault("sso", "add [http] or leave sso out", "a module without web pages has no login for them")
	}
	c := moduleCheck{d: d, m: m, accounts: a, known: known}
	c.services()
	c.volumes()
	c.migrations()
	checkNetworking(d, &m.Module)
	checkForms(d, &m.Module)
	c.secrets()
	c.templates()
	c.journeys()
	c.backup()
	c.repairs()
}

// moduleCheck checks the parts of one module.
type moduleCheck struct {
	d        *document
	m        *ModuleSpec
	accounts Accounts
	known    bool
}

func checkLimits(d *document, m *ModuleSpec) {
	d.number("memory.max", m.Memory.Max, 1, maxDisk)
	if m.Memory.Max > 0 {
		d.number("memory.idle", m.Memory.Idle, 0, m.Memory.Max)
		d.number("memory.typical", m.Memory.Typical, 0, m.Memory.Max)
	}
	d.number("cpu", m.CPU, 0, 10000)
	d.number("io", m.IO, 0, 1000)
	d.number("oom", m.OOM, 0, 1000)
	d.number("pids", m.PIDs, 0, 1<<15)
}

func checkHTTP(d *document, h *image.HTTP) {
	if h == nil {
		return
	}
	d.port("http.port", h.Port)
	d.prefix("http.path", h.Path)
	if h.Strip && h.Path == "/" {
		d.fault("http.strip", "leave it out", "path / has nothing to strip")
	}
	seen := once{h.Path: "http.path"}
	for i, p := range h.Also {
		d.prefix(item("http.also", i), p)
		seen.add(d, item("http.also", i), p)
	}
}

// prefix checks a prefix of URL paths.
func (d *document) prefix(key, p string) {
	if !prefixForm.MatchString(p) || path.Clean(p) != p {
		d.fault(key, `want a path such as "/" or "/wiki"`, "path %q is not usable", p)
	}
}

var prefixForm = regexp.MustCompile(`^/[A-Za-z0-9._~/-]*$`) // unreserved characters of RFC 3986

// user checks that a user is one of the tree's.
func (c *moduleCheck) user(key, name string) {
	if _, ok := c.accounts.User(name); !ok && c.known {
		c.d.fault(key, oneOf(name, userNames(c.accounts)), "no user %q in the module's tree", name)
	}
}

// process checks what services and tasks have in common.
func (c *moduleCheck) process(key string, t *image.Task) {
	c.command(join(key, "command"), t.Command)
	c.user(join(key, "user"), t.User)
	c.environment(join(key, "env"), t.Env)
	unique(c.d, join(key, "tmpfs"), t.Tmpfs)
	for i, p := range t.Tmpfs {
		c.tmpfs(item(join(key, "tmpfs"), i), p)
	}
	c.d.number(join(key, "timeout"), t.Timeout, 0, maxTime)
}

// maxTime is the longest time in seconds that tasks may take, and services to get ready.
const maxTime = 3600

func (c *moduleCheck) command(key string, command []string) {
	if len(command) == 0 {
		c.d.missing(key, `write, for instance, command = ["/usr/sbin/nginx", "-e", "stderr"]`)
		return
	}
	c.d.path(item(key, 0), command[0])
}

var envForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=[^\x00]*$`)

func (c *moduleCheck) environment(key string, env []string) {
	seen := once{}
	for i, e := range env {
		if !envForm.MatchString(e) {
			c.d.fault(item(key, i), "want NAME=value", "environment variable %q is not usable", e)
		}
		name, _, _ := strings.Cut(e, "=")
		seen.add(c.d, item(key, i), name)
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

// mountPoint checks a path that something is mounted at: not where the runtime has its own mounts.
func (c *moduleCheck) mountPoint(key, p string) bool {
	if !c.d.path(key, p) {
		return false
	}
	if strings.Contains(p, ":") {
		c.d.fault(key, "", "%q has a colon, which overlayfs cannot have in paths", p)
		return false
	}
	for _, taken := range []string{"/proc", "/sys", "/dev", "/run/config", "/run/secrets"} {
		if p == taken || inside(p, taken) {
			c.d.fault(key, "", "%q is the runtime's own", p)
			return false
		}
	}
	return true
}

// inside tells whether p is below folder.
func inside(p, folder string) bool { return strings.HasPrefix(p, folder+"/") }

// serviceNames are the names of the module's services.
func serviceNames(m *image.Module) []string {
	return names(m.Services, func(s image.Service) string { return s.Name })
}

// names are the names of the elements of a list.
func names[T any](all []T, name func(T) string) []string {
	out := make([]string, len(all))
	for i, x := range all {
		out[i] = name(x)
	}
	return out
}

// known checks that a word names an element of a list of the module.
func (d *document) known(key, what, word string, all []string) bool {
	if slices.Contains(all, word) {
		return true
	}
	d.fault(key, oneOf(word, all), "no %s %q in this module", what, word)
	return false
}
