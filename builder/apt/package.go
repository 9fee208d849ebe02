package apt

import (
	"fmt"
	"path"
	"regexp"

	"allotment/image"
)

// Package is one Debian binary package as a signed index names it, or one of the npm registry. It has all that is needed to fetch it and to be sure
// that it is the right one.
type Package struct {
	Name    string       `toml:"name"`
	Version string       `toml:"version"`
	Arch    string       `toml:"arch"`    // amd64, arm64 or all
	Source  string       `toml:"source"`  // source package, with its version in parentheses if that differs
	Archive string       `toml:"archive"` // main (with updates), security or npm: which mirror has Path
	Path    string       `toml:"path"`    // below the mirror's root
	Size    int64        `toml:"size"`    // bytes
	SHA256  image.Digest `toml:"sha256"`
}

// The archives that packages come from.
const (
	Main     = "main"     // with its updates
	Security = "security" // Debian's security archive
	NPM      = "npm"      // the npm registry
)

var (
	namePattern    = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]+$`)                          // Debian policy 5.6.1
	versionPattern = regexp.MustCompile(`^[0-9][A-Za-z0-9.+~:-]*$`)                        // Debian policy 5.6.12
	sourcePattern  = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]+( \([A-Za-z0-9.+~:-]+\))?$`) // Debian policy 5.6.1 and deb-src
	npmPattern     = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]+/-/[A-Za-z0-9.+_-]+\.tgz$`)
	pathPattern    = regexp.MustCompile(`^pool/[A-Za-z0-9.+~_/-]+\.deb$`) // as in the pools; the same in URLs
)

// maxPackage bounds the size of a package; the largest in Debian 13 has some 2 GB.
const maxPackage = 8 << 30

// String is the package for people: name, version and architecture.
func (p Package) String() string { return p.Name + " " + p.Version + " " + p.Arch }

// Check tells what in p cannot be.
func (p Package) Check() error {
	switch {
	case !namePattern.MatchString(p.Name):
		return fmt.Errorf("package name %q is not one", p.Name)
	case !versionPattern.MatchString(p.Version):
		return fmt.Errorf("package %s: version %q is not one", p.Name, p.Version)
	case p.Arch != "amd64" && p.Arch != "arm64" && p.Arch != "all":
		return fmt.Errorf("package %s: arch %q is not amd64, arm64 or all", p.Name, p.Arch)
	case !sourcePattern.MatchString(p.Source):
		return fmt.Errorf("package %s: source %q is not one", p.Name, p.Source)
	case p.Archive != Main && p.Archive != Security && p.Archive != NPM:
		return fmt.Errorf("package %s: archive %q is not main, security or npm", p.Name, p.Archive)
	case p.Archive == NPM && !npmPattern.MatchString(p.Path):
		return fmt.Errorf("package %s: path %q is not a .tgz of the npm registry", p.Name, p.Path)
	case p.Archive != NPM && (path.Clean("/"+p.Path) != "/"+p.Path || !pathPattern.MatchString(p.Path)):
		return fmt.Errorf("package %s: path %q is not a .deb below pool/", p.Name, p.Path)
	case p.Size <= 0 || p.Size > maxPackage:
		return fmt.Errorf("package %s: size %d is not within 1 to %d bytes", p.Name, p.Size, int64(maxPackage))
	}
	if _, err := image.ParseDigest(string(p.SHA256)); err != nil {
		return fmt.Errorf("package %s: %w", p.Name, err)
	}
	return nil
}
