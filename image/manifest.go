package image

import (
	"encoding/json"
	"fmt"
	"os"
)

// ManifestPath is where the manifest lies in the verified root.
const ManifestPath = "/usr/lib/allotment/manifest.json"

// ManifestFormat is the value of Manifest.Format that this code reads and writes.
const ManifestFormat = 1

// Manifest is what a root file system says of the system that it belongs to. It lies inside the dm-verity root, so
// everything that it names by digest is as trusted as the root itself. See docs/formats/manifest.md.
type Manifest struct {
	Format  int      `json:"format"`
	Name    string   `json:"name"` // of the profile
	Title   string   `json:"title"`
	Version Version  `json:"version"`
	Arch    Arch     `json:"arch"`
	Epoch   int64    `json:"epoch"`  // Unix time in seconds of the newest input; no correct clock shows less
	Kernel  string   `json:"kernel"` // release, as uname -r prints it
	Layers  []Layer  `json:"layers"` // every layer that a module names, each once
	Modules []Module `json:"modules"`
	Seed    Seed     `json:"seed"`
	Network Network  `json:"network"`
	Time    Time     `json:"time"`
	Update  Update   `json:"update,omitzero"`
	Gateway Gateway  `json:"gateway,omitzero"`

	Organisation Organisation              `json:"organisation"`        // until its officers say otherwise
	Settings     map[string]map[string]any `json:"settings,omitempty"`  // of modules, by their names: where not the defaults
	Developer    bool                      `json:"developer,omitempty"` // the api lets a developer do as he likes; see docs/formats/api.md
}

// ReadManifest reads the manifest at path, and refuses one of another format than this code knows.
func ReadManifest(path string) (*Manifest, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the manifest: %w", err)
	}
	m := &Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("cannot read the manifest %q: %w", path, err)
	}
	if m.Format != ManifestFormat {
		return nil, fmt.Errorf("cannot use the manifest %q: its format is %d, not %d", path, m.Format, ManifestFormat)
	}
	return m, nil
}

// Layer is one EROFS file of the module store.
type Layer struct {
	Name   string `json:"name"`   // for people, such as debian-base
	Digest Digest `json:"digest"` // fs-verity digest: SHA-256, 4 KiB blocks, no salt
	Size   int64  `json:"size"`   // bytes, a multiple of 4096
}

// Seed tells where a freshly written image carries the layers: end to end in the order of Manifest.Layers, inside the
// state partition, behind the room that the first boot's file system may use. See docs/formats/disk.md.
type Seed struct {
	Offset int64 `json:"offset"` // bytes from the start of the state partition, a multiple of 1 MiB
	Size   int64 `json:"size"`   // bytes, the sum of the layers' sizes
}

// Network is how the box joins the network.
type Network struct {
	Mode      string   `toml:"mode" json:"mode"`                               // "auto" (DHCPv4, SLAAC, DHCPv6) or "static"
	Interface string   `toml:"interface,omitempty" json:"interface,omitempty"` // name; empty: the first Ethernet link with a carrier
	Addresses []string `toml:"addresses,omitempty" json:"addresses,omitempty"` // static: CIDR, such as 192.0.2.10/24 or 2001:db8::10/64
	Gateways  []string `toml:"gateways,omitempty" json:"gateways,omitempty"`   // static: at most one per address family
	DNS       []string `toml:"dns,omitempty" json:"dns,omitempty"`             // resolvers; static, or in place of those from DHCP
}

// Time is where the box asks for the time.
type Time struct {
	Servers []string `toml:"servers" json:"servers"` // NTP host names or addresses
}

// Gateway is how the box meets those who visit it.
type Gateway struct {
	ACME ACME `toml:"acme" json:"acme,omitzero"`
}

// ACME is the authority that issues the certificates of the box's names (RFC 8555).
type ACME struct {
	Directory string `toml:"directory" json:"directory,omitempty"` // URL; empty: that of Let's Encrypt
	Email     string `toml:"email" json:"email,omitempty"`         // of the account; empty: the organisation's contact
	Root      string `toml:"root" json:"root,omitempty"`           // certificates in PEM, the only ones to trust for Directory; in a profile, their file
}
