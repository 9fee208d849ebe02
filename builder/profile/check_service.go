package profile

import (
	"regexp"
	"strconv"
	"strings"

	"allotment/image"
)

// What daemons are stopped by, and what makes them read their configuration anew.
var (
	signals = []string{"SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGKILL"}
	reloads = []string{"SIGHUP", "SIGUSR1", "SIGUSR2"}
)

// capabilities are those of capabilities(7) that a service may ask for: none that reaches beyond its container.
var capabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK",
	"CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
	"CAP_SYS_CHROOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
}

var httpForm = regexp.MustCompile(`^:([0-9]{1,5})(/[!-~]*)$`)

func (c *moduleCheck) services() {
	if len(c.m.Services) == 0 {
		c.d.fault("service", "add a [[service]]", "a module needs at least one service")
	}
	names := once{}
	for i := range c.m.Services {
		key, s := item("service", i), &c.m.Services[i]
		c.d.name(key+".name", s.Name, nameForm)
		names.add(c.d, key+".name", s.Name)
		for _, p := range []string{"task-", "migrate-"} {
			if strings.HasPrefix(s.Name, p) {
				c.d.fault(key+".name", "", "names that begin with %s are those of tasks", p)
			}
		}
		c.process(key, &image.Task{Command: s.Command, User: s.User, Env: s.Env, Tmpfs: s.Tmpfs})
		c.d.choice(key+".stop", orDefault(s.Stop, "SIGTERM"), signals...)
		c.d.number(key+".stop-timeout", s.StopTimeout, 0, 600)
		c.d.choice(key+".reload", orDefault(s.Reload, "SIGHUP"), reloads...)
		if c.m.Memory.Max > 0 {
			c.d.number(key+".memory", s.Memory, 0, c.m.Memory.Max)
		}
		for j, name := range s.Capabilities {
			c.d.choice(item(key+".capabilities", j), name, capabilities...)
		}
		unique(c.d, key+".capabilities", s.Capabilities)
		c.ready(key+".ready", s.Ready)
		c.live(key+".live", s.Live)
		unique(c.d, key+".needs", s.Needs)
	}
}

func (c *moduleCheck) ready(key string, k *image.Check) {
	if k == nil {
		return
	}
	c.question(key, k)
	c.d.number(key+".timeout", k.Timeout, 0, maxTime)
	for word, n := range map[string]int{"every": k.Every, "failures": k.Failures} {
		if n != 0 {
			c.d.fault(join(key, word), "leave it out, or ask in live", "a service gets ready once: %s has no meaning here", word)
		}
	}
}

func (c *moduleCheck) live(key string, k *image.Check) {
	if k == nil {
		return
	}
	c.question(key, k)
	c.d.number(key+".timeout", k.Timeout, 0, 300)
	c.d.number(key+".every", k.Every, 0, maxTime)
	c.d.number(key+".failures", k.Failures, 0, 100)
}

// question checks that a check asks just one thing.
func (c *moduleCheck) question(key string, k *image.Check) {
	if one(len(k.Exec) > 0, k.TCP != 0, k.HTTP != "", k.LDAP != 0) {
		switch {
		case len(k.Exec) > 0:
			c.d.path(item(key+".exec", 0), k.Exec[0])
		case k.TCP != 0:
			c.d.port(key+".tcp", k.TCP)
		case k.HTTP != "":
			c.portAndPath(key+".http", k.HTTP)
		case k.LDAP != 0:
			c.d.port(key+".ldap", k.LDAP)
		}
		return
	}
	c.d.fault(key, "give just one of exec, tcp, http and ldap", "a check asks one question")
}

func (c *moduleCheck) portAndPath(key, s string) {
	m := httpForm.FindStringSubmatch(s)
	if m == nil {
		c.d.fault(key, `want port and path, such as ":8080/"`, "check %q is not usable", s)
		return
	}
	port, _ := strconv.Atoi(m[1]) // digits alone, by the pattern
	c.d.port(key, port)
}

// one tells whether just one of several is true.
func one(all ...bool) bool { return count(all, func(b bool) bool { return b }) == 1 }
