package image

// Organisation is what an organisation says of itself, and every module may know.
type Organisation struct {
	Name     string `toml:"name" json:"name"`                 // such as "Garden Club Ashwell"
	Domain   string `toml:"domain" json:"domain"`             // DNS name; "allotment.internal" until there is one
	Language string `toml:"language" json:"language"`         // BCP 47, such as en or de
	TimeZone string `toml:"time-zone" json:"timeZone"`        // IANA name, such as Europe/London
	Contact  string `toml:"contact,omitempty" json:"contact"` // e-mail address of a person
}

// Setting is one field of a module's settings form.
type Setting struct {
	Name    string   `toml:"name" json:"name"`
	Title   string   `toml:"title" json:"title"`
	Help    string   `toml:"help,omitempty" json:"help,omitempty"`
	Type    string   `toml:"type" json:"type"`       // string, text, boolean, integer, choice, email, host or url
	Default any      `toml:"default" json:"default"` // of the type; required, so that every module works untouched
	Choices []string `toml:"choices,omitempty" json:"choices,omitempty"`
	Min     int      `toml:"min,omitempty" json:"min,omitempty"`         // least integer, or length in characters
	Max     int      `toml:"max,omitempty" json:"max,omitempty"`         // greatest integer, or length in characters; 0: 2^31-1, or 4096
	Pattern string   `toml:"pattern,omitempty" json:"pattern,omitempty"` // RE2 that the whole string must match
}

// Secret is made once on the device and kept in the state partition. Services read it as /run/secrets/NAME; it is never
// in a layer, nor in a log.
type Secret struct {
	Name string `toml:"name" json:"name"`
	Kind string `toml:"kind" json:"kind"`                     // password (32 characters of [A-Za-z0-9]), hex (32 bytes) or certificate
	User string `toml:"user" json:"user"`                     // who may read it
	Host string `toml:"host,omitempty" json:"host,omitempty"` // certificate: label below the domain; empty: the domain. Files NAME.crt and NAME.key
}

// Template is a file made of the organisation's settings, the module's and its secrets, with Go's text/template. Services
// read it as /run/config/NAME, in memory.
type Template struct {
	Name     string   `toml:"name" json:"name"`
	Source   string   `toml:"source" json:"source"`                         // file beside module.toml
	Text     string   `toml:"-" json:"text"`                                // its content; filled in by the builder
	User     string   `toml:"user" json:"user"`                             // who may read it, besides nobody
	Services []string `toml:"services,omitempty" json:"services,omitempty"` // that depend on it; empty: all of the module
}
