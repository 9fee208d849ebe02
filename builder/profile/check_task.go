package profile

import (
	"regexp"
	"strings"

	"allotment/image"
)

var (
	methodForm = regexp.MustCompile(`^[A-Z]+$`)
	headerForm = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+: [^\x00-\x08\x0a-\x1f\x7f]*$") // RFC 9110, 5.1
	targetForm = regexp.MustCompile(`^/[!-~]*$`)
)

func (c *moduleCheck) journeys() {
	seen := once{}
	for i, j := range c.m.Journeys {
		key := item("journey", i)
		c.d.name(key+".name", j.Name, nameForm)
		seen.add(c.d, key+".name", j.Name)
		c.d.filled(key+".title", j.Title)
		if len(j.Steps) == 0 {
			c.d.missing(key+".step", "add a [[journey.step]]")
		}
		for n := range j.Steps {
			c.step(item(key+".step", n), &j.Steps[n])
		}
	}
}

func (c *moduleCheck) step(key string, s *image.Step) {
	c.d.filled(key+".title", s.Title)
	if !one(s.Task != nil, s.HTTP != nil, s.LDAP != nil, s.TCP != 0) {
		c.d.fault(key, "give just one of task, http, ldap and tcp", "a step does one thing")
		return
	}
	switch {
	case s.Task != nil:
		c.process(key+".task", s.Task)
	case s.HTTP != nil:
		c.request(key+".http", s.HTTP)
	case s.LDAP != nil:
		c.search(key+".ldap", s.LDAP)
	case s.TCP != 0:
		c.d.port(key+".tcp", s.TCP)
	}
}

func (c *moduleCheck) request(key string, r *image.Request) {
	if r.Method != "" && !methodForm.MatchString(r.Method) {
		c.d.fault(key+".method", "want capital letters, such as GET or PROPFIND", "method %q is not usable", r.Method)
	}
	c.d.port(key+".port", r.Port)
	if !targetForm.MatchString(r.Path) {
		c.d.fault(key+".path", `want a path such as "/" or "/login?x=1"`, "path %q is not usable", r.Path)
	}
	for i, h := range r.Headers {
		if !headerForm.MatchString(h) {
			c.d.fault(item(key+".headers", i), `want "Name: value"`, "header %q is not usable", h)
		}
	}
	if (r.User == "") != (r.Secret == "") || strings.ContainsAny(r.User, ":\n") { // RFC 7617, 2
		c.d.fault(key+".user", "give user, without a colon, and secret or none of the two", "user %q is not usable", r.User)
	}
	c.password(key+".secret", r.Secret)
	for i, n := range r.Status {
		c.d.number(item(key+".status", i), n, 100, 599)
	}
}

func (c *moduleCheck) search(key string, r *image.LDAPRequest) {
	c.d.port(key+".port", r.Port)
	if (r.DN == "") != (r.Secret == "") {
		c.d.fault(key+".dn", "give dn and secret or none of the two", "a bind as somebody wants a password")
	}
	c.password(key+".secret", r.Secret)
	c.d.filled(key+".base", r.Base)
	if !strings.HasPrefix(r.Filter, "(") || !strings.HasSuffix(r.Filter, ")") {
		c.d.fault(key+".filter", `want brackets, as in "(uid=anna)"`, "filter %q is not usable", r.Filter)
	}
	c.d.number(key+".least", r.Least, 0, 1000)
}

// password checks that the name of a secret is that of a password.
func (c *moduleCheck) password(key, name string) {
	if name != "" {
		c.d.known(key, "password", name, passwords(&c.m.Module))
	}
}

func (c *moduleCheck) repairs() {
	seen := once{}
	for i := range c.m.Repairs {
		key, r := item("repair", i), &c.m.Repairs[i]
		c.d.name(key+".name", r.Name, nameForm)
		seen.add(c.d, key+".name", r.Name)
		c.d.filled(key+".title", r.Title)
		c.d.filled(key+".help", r.Help)
		c.process(key, &r.Task)
	}
}
