// Package profile reads what a person writes: profiles (what one image is for), trees (which packages, and what their
// maintainer scripts would have done) and modules. All three are TOML, read strictly: an unknown key, a wrong type or an
// impossible value is an error with file, line, column and remedy.
package profile

import "allotment/image"

// Profile is what one image is for; see docs/formats/profile.md.
type Profile struct {
	Format      int           `toml:"format"` // 1
	Name        string        `toml:"name"`   // the file's name without .toml
	Title       string        `toml:"title"`  // for people
	Version     image.Version `toml:"version"`
	Channel     string        `toml:"channel"` // stable or candidate
	Archs       []image.Arch  `toml:"arch"`
	ModuleNames []string      `toml:"modules"`
	Outputs     []string      `toml:"outputs"` // raw.zst, qcow2, vmdk, vhd
	Kernel      Kernel        `toml:"kernel"`
	Disk        Disk          `toml:"disk"`
	Network     image.Network `toml:"network"`
	Time        image.Time    `toml:"time"`
	Debian      Debian        `toml:"debian"`
	Update      image.Update  `toml:"update"`
	Gateway     image.Gateway `toml:"gateway"`
	Developer   bool          `toml:"developer"` // an image for working on modules, never for members

	Organisation image.Organisation        `toml:"organisation"` // what it says of itself before its officers have spoken
	Settings     map[string]map[string]any `toml:"settings"`     // of modules, by their names: where not the defaults

	File    string           `toml:"-"` // where it was read from
	Trees   map[string]*Tree `toml:"-"` // boot, root, debian-base, and one per module by its name
	Modules []*ModuleSpec    `toml:"-"` // in the order of ModuleNames
}

// Kernel says how the kernel is started.
type Kernel struct {
	CommandLine string `toml:"command-line"` // appended to ours
}

// Disk sizes the partitions, in MiB. Zero values mean the defaults of docs/formats/disk.md.
type Disk struct {
	ESP    int `toml:"esp"`
	Root   int `toml:"root"`   // of each slot
	Verity int `toml:"verity"` // of each slot
	State  int `toml:"state"`  // least size in the image; it grows to the disk on first boot
}

// Debian says where packages come from. Empty values mean the public defaults.
type Debian struct {
	Mirror   string `toml:"mirror"`   // http://deb.debian.org/debian
	Security string `toml:"security"` // http://deb.debian.org/debian-security
	Snapshot string `toml:"snapshot"` // https://snapshot.debian.org
	NPM      string `toml:"npm"`      // https://registry.npmjs.org
	Pool     string `toml:"pool"`     // a local folder that lock --keep filled; empty: none
}

// Tree declares one file tree; see docs/formats/tree.md. Paths are absolute paths in the tree; patterns are as in
// path.Match, with ** for any number of path elements.
type Tree struct {
	Name          string   `toml:"-"`                        // by which the lock knows it
	Base          string   `toml:"base,omitempty"`           // the tree below, whose packages and users are already there
	Image         string   `toml:"image,omitempty"`          // an OCI image, HOST/NAME@sha256:DIGEST, in place of base and packages
	Packages      []string `toml:"packages"`                 // Debian packages; their dependencies follow
	PackagesAMD64 []string `toml:"packages-amd64,omitempty"` // more of them for one architecture
	PackagesARM64 []string `toml:"packages-arm64,omitempty"`
	NPM           []string `toml:"npm,omitempty"`       // packages of the npm registry, NAME@VERSION: files for browsers
	Without       []string `toml:"without,omitempty"`   // packages that are not wanted although something depends on them
	Include       []string `toml:"include,omitempty"`   // if any: only paths that fit one of these patterns stay
	Remove        []string `toml:"remove,omitempty"`    // paths that fit go, after Include
	CABundle      bool     `toml:"ca-bundle,omitempty"` // concatenate /usr/share/ca-certificates/mozilla into one file
	Users         []User   `toml:"user,omitempty"`
	Groups        []Group  `toml:"group,omitempty"`
	Dirs          []Dir    `toml:"dir,omitempty"`
	Links         []Link   `toml:"link,omitempty"`
	Files         []File   `toml:"file,omitempty"`
	Modes         []Mode   `toml:"mode,omitempty"`   // changes of what packages ship
	Ignore        []Ignore `toml:"ignore,omitempty"` // what a normal installation has and this tree needs not

	Dir string `toml:"-"` // folder that File.Source is relative to
}

// User is an account with ids fixed by us. Its group is Group, or a group of its own name and the same id.
type User struct {
	Name   string   `toml:"name"`
	UID    int      `toml:"uid"`
	Group  string   `toml:"group,omitempty"`
	Groups []string `toml:"groups,omitempty"` // further ones
	Home   string   `toml:"home,omitempty"`   // default /nonexistent
	Shell  string   `toml:"shell,omitempty"`  // default /usr/sbin/nologin
}

// Group is a group without a user of its name.
type Group struct {
	Name string `toml:"name"`
	GID  int    `toml:"gid"`
}

// Dir is a folder; one that exists gets the mode and owner.
type Dir struct {
	Path  string `toml:"path"`
	Mode  string `toml:"mode,omitempty"`  // octal, default 0755
	Owner string `toml:"owner,omitempty"` // user:group by name, default root:root
}

// Link is a symbolic link; it replaces a file or an empty folder.
type Link struct {
	Path   string `toml:"path"`
	Target string `toml:"target"`
}

// File is a file of ours. Just one of Content, Source and Copy is set.
type File struct {
	Path    string `toml:"path"`
	Content string `toml:"content,omitempty"`
	Source  string `toml:"source,omitempty"` // file beside the declaration
	Copy    string `toml:"copy,omitempty"`   // path in the tree
	Mode    string `toml:"mode,omitempty"`   // octal, default 0644
	Owner   string `toml:"owner,omitempty"`
}

// Mode changes mode and owner of a path that a package ships (as dpkg-statoverride does).
type Mode struct {
	Path  string `toml:"path"`
	Mode  string `toml:"mode,omitempty"`
	Owner string `toml:"owner,omitempty"`
}

// Ignore says why a path that a normal installation has is not needed here.
type Ignore struct {
	Path string `toml:"path"` // pattern
	Why  string `toml:"why"`
}

// ModuleSpec is one module as its author writes it: what the device enforces, and the tree it is built from.
type ModuleSpec struct {
	image.Module
	Format int  `toml:"format"` // 1
	Tree   Tree `toml:"tree"`

	File string `toml:"-"`
}
