package sbom

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/builder/lock"
	"allotment/image"
)

func digest(letter string) image.Digest { return image.Digest("sha256:" + strings.Repeat(letter, 64)) }

func sample() Image {
	libc := lock.Package{Name: "libc6", Version: "2.41-12+deb13u4", Arch: "amd64", Source: "glibc", Archive: "main",
		Path: "pool/main/g/glibc/libc6_2.41-12+deb13u4_amd64.deb", Size: 1, SHA256: digest("a")}
	cpp := lock.Package{Name: "libstdc++6", Version: "1:14.2.0-19~x", Arch: "amd64", Source: "gcc-14 (14.2.0-19)", Archive: "security",
		Path: "pool/main/g/gcc-14/x.deb", Size: 1, SHA256: digest("b")}
	return Image{Name: "club", Version: "2026.11.1", Arch: image.AMD64, Epoch: time.Unix(1_763_700_000, 0), Parts: []Part{
		{Name: "root", Packages: []lock.Package{libc}, Modules: []GoModule{{"golang.org/x/sys", "v0.49.0"}}},
		{Name: "web", Packages: []lock.Package{libc, cpp}},
	}}
}

func write(t *testing.T, img Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWrite(t *testing.T) {
	var d document
	if err := json.Unmarshal(write(t, sample()), &d); err != nil {
		t.Fatal(err)
	}
	if d.SPDXVersion != "SPDX-2.3" || d.CreationInfo.Created != "2025-11-21T04:40:00Z" || d.Name != "club-2026.11.1-amd64" {
		t.Errorf("document is %+v", d)
	}
	ids := map[string]spdxPackage{}
	form := regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`)
	for _, p := range d.Packages {
		if _, twice := ids[p.SPDXID]; twice || !form.MatchString(p.SPDXID) {
			t.Errorf("identifier %q is used twice or malformed", p.SPDXID)
		}
		ids[p.SPDXID] = p
	}
	if len(d.Packages) != 1+2+3 {
		t.Errorf("document has %d packages, want the shared one once", len(d.Packages))
	}
	for _, r := range d.Relationships {
		if _, ok := ids[r.To]; !ok {
			t.Errorf("relation to %q, which is not there", r.To)
		}
	}
	cpp := ids["SPDXRef-deb-libstdc--6-amd64-bbbbbbbbbbbb"]
	want := "pkg:deb/debian/libstdc%2B%2B6@1:14.2.0-19~x?arch=amd64&distro=trixie"
	if len(cpp.ExternalRefs) != 1 || cpp.ExternalRefs[0].Locator != want {
		t.Errorf("package URL is %v, want %s", cpp.ExternalRefs, want)
	}
	if cpp.Checksums[0].Value != digest("b").Hex() || !strings.HasSuffix(cpp.SourceInfo, "gcc-14 (14.2.0-19)") ||
		!strings.HasPrefix(cpp.DownloadLocation, "http://deb.debian.org/debian-security/pool/") {
		t.Errorf("package is %+v", cpp)
	}
	if libc := ids["SPDXRef-deb-libc6-amd64-aaaaaaaaaaaa"]; !strings.HasSuffix(libc.SourceInfo, "glibc (2.41-12+deb13u4)") {
		t.Errorf("package is %+v", libc)
	}
	contains := func(from, to string) bool {
		return slices.Contains(d.Relationships, relationship{from, "CONTAINS", to})
	}
	for _, part := range []string{"SPDXRef-Part-root", "SPDXRef-Part-web"} {
		if !contains("SPDXRef-Image", part) || !contains(part, "SPDXRef-deb-libc6-amd64-aaaaaaaaaaaa") {
			t.Errorf("relations of %s are missing: %v", part, d.Relationships)
		}
	}
}

func TestWriteIsReproducible(t *testing.T) {
	first := write(t, sample())
	if !bytes.Equal(first, write(t, sample())) {
		t.Error("the same image twice gives different documents")
	}
	other := sample()
	other.Parts[1].Packages[1].SHA256 = digest("c")
	if a, b := namespace(sample()), namespace(other); a == b || bytes.Equal(first, write(t, other)) {
		t.Error("another package gives the same document")
	}
}

func TestReadGoModules(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	modules, err := ReadGoModules(self, self)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(modules); n == 0 || modules[n-1].Path != "stdlib" || !strings.HasPrefix(modules[n-1].Version, "1.") {
		t.Errorf("modules are %v, want the Go distribution among them", modules)
	}
	if len(slices.Compact(slices.Clone(modules))) != len(modules) {
		t.Errorf("modules are %v, want each once", modules)
	}
	if _, err := ReadGoModules("sbom.go"); err == nil {
		t.Error("modules of a file that is no program")
	}
}
