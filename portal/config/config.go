// Package config is what the supervisor tells the portal, in a file in JSON that is its only argument and that it reads
// again at SIGHUP.
package config

import (
	"encoding/json"
	"fmt"
	"os"
)

// Config is the portal's configuration. Paths are absolute.
type Config struct {
	API       string   `json:"api"`       // unix socket of the box's API
	Directory string   `json:"directory"` // HOST:PORT of the directory
	Password  string   `json:"password"`  // file with the password of the directory's account cn=portal,ou=services
	Claim     string   `json:"claim"`     // file with the claim code; it is not there once the box is claimed
	State     string   `json:"state"`     // folder of what the portal keeps
	Domain    string   `json:"domain"`    // of the organisation; allotment.internal if it has none yet
	Origin    string   `json:"origin"`    // scheme and host of the portal, such as https://portal.example.org; empty: as the visitor came
	Secure    bool     `json:"secure"`    // visitors come by HTTPS
	Modules   []Module `json:"modules"`   // that are on

	Organisation string `json:"organisation"` // its name
	TimeZone     string `json:"timeZone"`     // of the IANA's data base, such as Europe/London; empty: UTC
}

// Module is what the portal needs to know of a module that is on.
type Module struct {
	Name        string       `json:"name"`
	Title       string       `json:"title"`
	Path        string       `json:"path"` // of its page on Domain; empty: it has none
	SSO         string       `json:"sso"`  // none, header, basic or oidc
	Permissions []Permission `json:"permissions"`
}

// Permission is something that groups can be allowed to do in a module; see image.Permission.
type Permission struct {
	Name   string   `json:"name"`
	Title  string   `json:"title"`
	Groups []string `json:"groups,omitempty"` // who has it at first
}

// Read reads the file at path.
func Read(path string) (Config, error) {
	var c Config
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("cannot read the portal's configuration: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("cannot read the portal's configuration %q: %w", path, err)
	}
	return c, nil
}
