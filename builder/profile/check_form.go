package profile

import (
	"math"
	"regexp"
	"slices"

	"allotment/image"
)

// settingTypes are the types of image.Setting; those in textTypes are texts.
var (
	settingTypes = []string{"string", "text", "boolean", "integer", "choice", "email", "host", "url"}
	textTypes    = []string{"string", "text", "email", "host", "url"}
)

// maxText is the greatest length in characters that a setting may allow.
const maxText = 4096

// checkForms checks what people are shown: the form of settings, and permissions.
func checkForms(d *document, m *image.Module) {
	seen := once{}
	for i := range m.Settings {
		key, s := item("setting", i), &m.Settings[i]
		d.name(key+".name", s.Name, nameForm)
		seen.add(d, key+".name", s.Name)
		d.filled(key+".title", s.Title)
		checkSetting(d, key, s)
	}
	seen = once{}
	for i, p := range m.Permissions {
		key := item("permission", i)
		d.name(key+".name", p.Name, nameForm)
		seen.add(d, key+".name", p.Name)
		d.filled(key+".title", p.Title)
		for j, g := range p.Groups {
			d.choice(item(key+".groups", j), g, groups...)
		}
		unique(d, key+".groups", p.Groups)
	}
}

// checkSetting checks a setting's type, its bounds, and that its default fits both.
func checkSetting(d *document, key string, s *image.Setting) {
	before := len(d.faults)
	d.choice(key+".type", s.Type, settingTypes...)
	checkChoices(d, key, s)
	checkBounds(d, key, s)
	if s.Pattern != "" {
		if _, err := regexp.Compile(`^(?:` + s.Pattern + `)$`); err != nil {
			d.fault(key+".pattern", "want an expression of RE2", "pattern is not usable: %v", err)
		}
	}
	if !d.has(key + ".default") {
		d.missing(key+".default", "every module works before anybody has filled in its form")
	} else if _, err := s.Check(s.Default); err != nil && len(d.faults) == before { // else the same would be said twice
		d.fault(key+".default", "", "the default %v", err)
	}
}

func checkChoices(d *document, key string, s *image.Setting) {
	if s.Type == "choice" && len(s.Choices) == 0 {
		d.missing(key+".choices", "")
	}
	if s.Type != "choice" && len(s.Choices) > 0 {
		d.fault(key+".choices", `write type = "choice" or leave them out`, "a setting of type %q has no choices", s.Type)
	}
	for i, c := range s.Choices {
		d.filled(item(key+".choices", i), c)
	}
	unique(d, key+".choices", s.Choices)
}

func checkBounds(d *document, key string, s *image.Setting) {
	text := slices.Contains(textTypes, s.Type)
	switch {
	case text:
		d.number(key+".min", s.Min, 0, maxText)
		d.number(key+".max", s.Max, 0, maxText)
	case s.Type == "integer":
		d.number(key+".min", s.Min, math.MinInt32, math.MaxInt32)
		d.number(key+".max", s.Max, math.MinInt32, math.MaxInt32)
	case s.Min != 0 || s.Max != 0:
		d.fault(key, "leave them out", "a setting of type %q has neither min nor max", s.Type)
	}
	if s.Max != 0 && s.Min > s.Max {
		d.fault(key+".max", "", "max is %d, which is less than min, %d", s.Max, s.Min)
	}
	if s.Pattern != "" && !text {
		d.fault(key+".pattern", "leave it out", "a setting of type %q has no pattern", s.Type)
	}
}

// secrets checks the secrets that a module declares.
func (c *moduleCheck) secrets() {
	seen := once{}
	if c.m.LDAP != nil {
		seen["ldap"], seen["probe"] = "ldap", "ldap"
	}
	for i, s := range c.m.Secrets {
		key := item("secret", i)
		c.d.name(key+".name", s.Name, nameForm)
		seen.add(c.d, key+".name", s.Name)
		c.d.choice(key+".kind", s.Kind, "password", "hex", "certificate")
		c.user(key+".user", s.User)
		if s.Host != "" && s.Kind != "certificate" {
			c.d.fault(key+".host", "leave it out", "a secret of kind %q is not of a host", s.Kind)
		}
		if s.Host != "" && (!hostForm.MatchString(s.Host) || len(s.Host) > 63) {
			c.d.fault(key+".host", "want a name below the domain, such as chat", "host %q is not usable", s.Host)
		}
	}
}

// passwords are the names of the secrets that can be a password, those of the directory's accounts among them.
func passwords(m *image.Module) []string {
	var out []string
	for _, s := range m.Secrets {
		if s.Kind != "certificate" {
			out = append(out, s.Name)
		}
	}
	return append(out, ldapSecrets(m.LDAP)...)
}

// ldapSecrets are the names of the secrets that an account in the directory brings along.
func ldapSecrets(l *image.LDAP) []string {
	switch {
	case l == nil:
		return nil
	case l.Probe:
		return []string{"ldap", "probe"}
	}
	return []string{"ldap"}
}
