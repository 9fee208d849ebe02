// Package sbom writes what software an image holds as an SPDX 2.3 document in JSON.
package sbom

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"allotment/builder/apt"
	"allotment/builder/lock"
	"allotment/image"
)

// Image is a finished image.
type Image struct {
	Name    string
	Version image.Version
	Arch    image.Arch
	Epoch   time.Time
	Parts   []Part
}

// Part is a part of an image: the boot files, the root file system or a layer.
type Part struct {
	Name     string
	Packages []lock.Package
	Image    string // of an OCI registry that the part is made of, HOST/NAME@sha256:DIGEST; empty: none
	Modules  []GoModule
}

// GoModule is a module that one of our own programs is made of.
type GoModule struct {
	Path    string // "stdlib" is the Go distribution itself
	Version string
}

// ReadGoModules reads from compiled programs which modules they are made of, each once, sorted. Our own is not among them.
func ReadGoModules(programs ...string) ([]GoModule, error) {
	var all []GoModule
	for _, p := range programs {
		info, err := buildinfo.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("cannot read the modules of %q: %w", p, err)
		}
		all = append(all, GoModule{"stdlib", strings.TrimPrefix(info.GoVersion, "go")})
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			all = append(all, GoModule{d.Path, d.Version})
		}
	}
	slices.SortFunc(all, func(a, b GoModule) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Version, b.Version)) })
	return slices.Compact(all), nil
}

// Write writes the document. The same image gives the same bytes.
func Write(w io.Writer, img Image) error {
	b, err := json.MarshalIndent(newDocument(img), "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// The types below are those of the SPDX specification 2.3, as far as we use them.

type document struct {
	SPDXVersion       string         `json:"spdxVersion"`
	DataLicense       string         `json:"dataLicense"`
	SPDXID            string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	CreationInfo      creationInfo   `json:"creationInfo"`
	Packages          []spdxPackage  `json:"packages"`
	Relationships     []relationship `json:"relationships"`
}

type creationInfo struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	Name             string        `json:"name"`
	SPDXID           string        `json:"SPDXID"`
	VersionInfo      string        `json:"versionInfo,omitempty"`
	Supplier         string        `json:"supplier"`
	DownloadLocation string        `json:"downloadLocation"`
	FilesAnalyzed    bool          `json:"filesAnalyzed"`
	Checksums        []checksum    `json:"checksums,omitempty"`
	SourceInfo       string        `json:"sourceInfo,omitempty"`
	LicenseConcluded string        `json:"licenseConcluded"`
	LicenseDeclared  string        `json:"licenseDeclared"`
	CopyrightText    string        `json:"copyrightText"`
	ExternalRefs     []externalRef `json:"externalRefs,omitempty"`
	Purpose          string        `json:"primaryPackagePurpose,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const (
	documentID  = "SPDXRef-DOCUMENT"
	noAssertion = "NOASSERTION"
)

// newDocument lists the image, its parts, and what they contain, each package once.
func newDocument(img Image) document {
	d := document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: documentID,
		Name:              fmt.Sprintf("%s-%s-%s", img.Name, img.Version, img.Arch),
		CreationInfo:      creationInfo{img.Epoch.UTC().Format(time.RFC3339), []string{"Tool: allot"}},
		DocumentNamespace: namespace(img),
	}
	whole := newPackage("Image", img.Name, string(img.Version))
	whole.Purpose = "OPERATING-SYSTEM"
	d.add(documentID, "DESCRIBES", whole)
	for _, part := range img.Parts {
		p := newPackage("Part-"+part.Name, part.Name, string(img.Version))
		d.add(whole.SPDXID, "CONTAINS", p)
		for _, deb := range part.Packages {
			d.add(p.SPDXID, "CONTAINS", debian(deb))
		}
		if part.Image != "" {
			d.add(p.SPDXID, "CONTAINS", oci(part.Image))
		}
		for _, m := range part.Modules {
			d.add(p.SPDXID, "CONTAINS", golang(m))
		}
	}
	return d
}

// add adds a package, if it is not there yet, and how another element relates to it.
func (d *document) add(from, how string, p spdxPackage) {
	if !slices.ContainsFunc(d.Packages, func(q spdxPackage) bool { return q.SPDXID == p.SPDXID }) {
		d.Packages = append(d.Packages, p)
	}
	d.Relationships = append(d.Relationships, relationship{from, how, p.SPDXID})
}

// namespace is an address of this document alone: nothing need be found there (SPDX 2.3, 6.5).
func namespace(img Image) string {
	b, err := json.Marshal(img)
	if err != nil {
		panic("sbom: " + err.Error()) // strings and numbers alone
	}
	sum := sha256.Sum256(b)
	return fmt.Sprintf("https://spdx.org/spdxdocs/allotment-%s-%s-%s-%x", img.Name, img.Version, img.Arch, sum[:16])
}

var notInID = regexp.MustCompile(`[^A-Za-z0-9.-]`)

func newPackage(id, name, version string) spdxPackage {
	return spdxPackage{
		Name: name, SPDXID: "SPDXRef-" + notInID.ReplaceAllString(id, "-"), VersionInfo: version,
		Supplier: noAssertion, DownloadLocation: noAssertion,
		LicenseConcluded: noAssertion, LicenseDeclared: noAssertion, CopyrightText: noAssertion,
	}
}

// debian describes a Debian package.
func debian(p lock.Package) spdxPackage {
	if p.Archive == apt.NPM {
		return npm(p)
	}
	out := newPackage(fmt.Sprintf("deb-%s-%s-%s", p.Name, p.Arch, p.SHA256.Short()), p.Name, p.Version)
	out.Supplier = "Organization: Debian"
	archive := "debian"
	if p.Archive == apt.Security {
		archive = "debian-security"
	}
	out.DownloadLocation = "http://deb.debian.org/" + archive + "/" + p.Path
	out.Checksums = []checksum{{"SHA256", p.SHA256.Hex()}}
	out.SourceInfo = "built from Debian source package " + sourceOf(p)
	out.ExternalRefs = []externalRef{purl(fmt.Sprintf("deb/debian/%s@%s?arch=%s&distro=trixie", escape(p.Name), escape(p.Version), p.Arch))}
	return out
}

// npm describes a package of the npm registry.
func npm(p lock.Package) spdxPackage {
	out := newPackage(fmt.Sprintf("npm-%s-%s", p.Name, p.SHA256.Short()), p.Name, p.Version)
	out.DownloadLocation = apt.DefaultNPM + "/" + p.Path
	out.Checksums = []checksum{{"SHA256", p.SHA256.Hex()}}
	out.ExternalRefs = []externalRef{purl(fmt.Sprintf("npm/%s@%s", escape(p.Name), escape(p.Version)))}
	return out
}

// sourceOf is a package's source with its version.
func sourceOf(p lock.Package) string {
	if strings.HasSuffix(p.Source, ")") {
		return p.Source
	}
	return fmt.Sprintf("%s (%s)", cmp.Or(p.Source, p.Name), p.Version)
}

// golang describes a Go module.
func golang(m GoModule) spdxPackage {
	sum := sha256.Sum256([]byte(m.Path + "@" + m.Version))
	out := newPackage(fmt.Sprintf("go-%s-%s", m.Path, hex.EncodeToString(sum[:6])), m.Path, m.Version)
	out.ExternalRefs = []externalRef{purl(fmt.Sprintf("golang/%s@%s", m.Path, escape(m.Version)))}
	return out
}

// oci describes an image of a registry; what is in it, its own maker must tell.
func oci(ref string) spdxPackage {
	repository, digest, _ := strings.Cut(ref, "@")
	name := path.Base(repository)
	hex := strings.TrimPrefix(digest, "sha256:")
	out := newPackage(fmt.Sprintf("oci-%s-%s", name, hex[:min(12, len(hex))]), name, digest)
	out.DownloadLocation = ref
	out.Checksums = []checksum{{"SHA256", hex}}
	out.ExternalRefs = []externalRef{purl(fmt.Sprintf("oci/%s@%s?repository_url=%s", name, escape(digest), url.QueryEscape(repository)))}
	return out
}

func purl(rest string) externalRef { return externalRef{"PACKAGE-MANAGER", "purl", "pkg:" + rest} }

// escape percent-encodes a component of a package URL, where colons stay as they are.
func escape(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(url.QueryEscape(s), "%3A", ":"), "+", "%20")
}
