package apt

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"os"
	"testing"

	"allotment/builder/profile"
	"allotment/image"
	"allotment/internal/cache"
	"allotment/internal/progress"
)

// offer makes the registry say that hello.js 1.2.3 has the bytes of one text, and give those of another.
func offer(a *archive, said, given string) {
	sum := sha512.Sum512([]byte(said))
	a.files["/hello.js/1.2.3"] = fmt.Appendf(nil, `{"name": "hello.js", "version": "1.2.3", "dist": {"integrity": "sha512-%s"}}`,
		base64.StdEncoding.EncodeToString(sum[:]))
	a.files["/hello.js/-/hello.js-1.2.3.tgz"] = []byte(given)
}

func TestNPM(t *testing.T) {
	a := newArchive(t)
	offer(a, "bytes", "bytes")
	places := profile.Debian{NPM: a.URL}
	p, err := New(cache.Dir(t.TempDir()), places).NPM(t.Context(), "hello.js@1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	want := Package{
		Name: "hello.js", Version: "1.2.3", Arch: "all", Source: "hello.js", Archive: NPM, Size: 5,
		Path: "hello.js/-/hello.js-1.2.3.tgz", SHA256: image.NewDigest(sha256.Sum256([]byte("bytes"))),
	}
	if p != want {
		t.Errorf("package is %+v, want %+v", p, want)
	}
	// Another builder has only the lock.
	files, err := New(cache.Dir(t.TempDir()), places).Fetch(t.Context(), []Package{p}, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(files[0]); err != nil || string(b) != "bytes" {
		t.Errorf("fetched %q, %v", b, err)
	}
	offer(a, "bytes", "BYTES")
	if _, err := New(cache.Dir(t.TempDir()), places).Fetch(t.Context(), []Package{p}, progress.Silent{}); err == nil {
		t.Error("other bytes than the locked ones were accepted")
	}
}

func TestNPMRefuses(t *testing.T) {
	a := newArchive(t)
	offer(a, "bytes", "other")
	c := New(cache.Dir(t.TempDir()), profile.Debian{NPM: a.URL})
	for _, named := range []string{"hello.js@1.2.3", "hello.js@1.2.4", "hello.js", "@scope/hello@1.2.3"} {
		if p, err := c.NPM(t.Context(), named); err == nil {
			t.Errorf("%s: accepted %+v", named, p)
		}
	}
}
