// Package gateway is what the supervisor and the gateway tell each other: a file says where portal and modules are,
// and the gateway answers whether it follows it. The gateway itself is in package gateway/proxy, its certificates in
// gateway/certs.
package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"allotment/image"
)

// HealthPath is answered by the gateway itself, whatever the modules do, with a Health.
const HealthPath = "/.well-known/allotment/health"

// AuthorityPath gives the certificate of the box's own authority, for those who want to trust it.
const AuthorityPath = "/.well-known/allotment/ca"

// Health is the gateway's answer at HealthPath, in JSON.
type Health struct {
	Status string `json:"status"` // ok
	Config string `json:"config"` // digest of the Config that it follows
}

// Config is what the supervisor tells the gateway; see docs/formats/gateway.md.
type Config struct {
	Routes      []Route             `json:"routes"`
	Names       []string            `json:"names,omitempty"`        // host names and addresses of the box, for certificates
	Domain      string              `json:"domain,omitempty"`       // of the organisation; www.DOMAIN leads there
	Portal      string              `json:"portal,omitempty"`       // unix:PATH of the portal's socket; empty: there is none
	PortalHost  string              `json:"portal_host,omitempty"`  // the portal's own host name; empty: it has none yet
	Data        string              `json:"data,omitempty"`         // folder for keys and certificates; empty: no TLS
	ModuleNames map[string][]string `json:"module_names,omitempty"` // module: the names of its certificate in Data/modules
	ACME        ACME                `json:"acme,omitzero"`
	DNS         []string            `json:"dns,omitempty"` // addresses of name servers, by which ACME.Directory is found
}

// ACME says who issues publicly trusted certificates (RFC 8555).
type ACME struct {
	Directory string `json:"directory,omitempty"` // URL; empty: nobody does
	Email     string `json:"email,omitempty"`     // of the account; may be empty
	Root      string `json:"root,omitempty"`      // certificates in PEM to trust for Directory instead of the usual ones: it is the organisation's own
}

// How a module is told who a visitor is; see Route.SSO.
const (
	SSOHeader = "header" // by X-Remote-User and its kind
	SSOBasic  = "basic"  // by Authorization: Basic with an app password, unless the client sends its own
)

// Digest is the SHA-256 of the configuration in hex digits. The gateway answers it at HealthPath.
func (c Config) Digest() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // texts and switches can always be written
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Route leads requests below a path to a module.
type Route struct {
	Hosts  []string `json:"hosts,omitempty"`  // host names that it is for; empty: every name of the box but the portal's
	Path   string   `json:"path"`             // prefix by whole path elements; "/" fits all
	Title  string   `json:"title"`            // of the module, for people
	Target string   `json:"target"`           // URL of scheme http without a path
	Ready  bool     `json:"ready"`            // false: visitors are told to wait, and nothing is forwarded
	Strip  bool     `json:"strip"`            // the module gets paths without the prefix, and the prefix as X-Script-Name
	Module string   `json:"module,omitempty"` // its name
	SSO    string   `json:"sso,omitempty"`    // SSOHeader, SSOBasic, or anything else: the module is told nothing
}

// Routes are those of one module's web endpoint at target.
func Routes(h *image.HTTP, title, target string, ready bool) []Route {
	all := []Route{{Path: h.Path, Title: title, Target: target, Ready: ready, Strip: h.Strip}}
	for _, path := range h.Also {
		all = append(all, Route{Path: path, Title: title, Target: target, Ready: ready})
	}
	return all
}

// ReadConfig reads the file at path.
func ReadConfig(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the gateway's configuration: %w", err)
	}
	var c Config
	if err := json.Unmarshal(b, &c); err != nil {
		return Config{}, fmt.Errorf("cannot read the gateway's configuration %q: %w", path, err)
	}
	return c, nil
}
