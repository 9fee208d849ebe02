package npm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// pack makes a package of members, each a name, a type and a content.
func pack(t testing.TB, members ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range members {
		text := h.PAXRecords["text"]
		h.PAXRecords, h.Size = nil, int64(len(text))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, text)
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func member(name, text string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o777, Uid: 1000, PAXRecords: map[string]string{"text": text}}
}

const about = `{"name": "hello.js", "version": "1.2.3"}`

func TestWriteTar(t *testing.T) {
	var out bytes.Buffer
	pkg := pack(t, member("package/z.js", "z"), member("package/package.json", about), member("package/dist/a.js", "a"))
	if err := WriteTar(t.Context(), bytes.NewReader(pkg), &out); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%s %o %d %d\n", h.Name, h.Mode, h.Uid, h.Size)
	}
	want := "./usr/share/npm/hello.js/dist/a.js 644 0 1\n./usr/share/npm/hello.js/package.json 644 0 40\n" +
		"./usr/share/npm/hello.js/z.js 644 0 1\n"
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", &got, want)
	}
}

func TestWriteTarRefuses(t *testing.T) {
	json := member("package/package.json", about)
	for name, members := range map[string][]*tar.Header{
		"a path that leads out": {json, member("package/../../x", "")},
		"a path twice":          {json, member("package/x", ""), member("other/x", "")},
		"a link":                {json, {Name: "package/x", Typeflag: tar.TypeSymlink, Linkname: "/etc"}},
		"no package.json":       {member("package/x", "")},
		"a name that leads out": {member("package/package.json", `{"name": "../x", "version": "1"}`)},
	} {
		if err := WriteTar(t.Context(), bytes.NewReader(pack(t, members...)), io.Discard); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestRelease(t *testing.T) {
	sum := sha512.Sum512([]byte("bytes"))
	text := fmt.Sprintf(`{"name": "hello.js", "version": "1.2.3", "dist": {"integrity": "sha512-%s"}}`, base64.StdEncoding.EncodeToString(sum[:]))
	r, err := ReadRelease([]byte(text), "hello.js", "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(strings.NewReader("bytes")); err != nil {
		t.Error(err)
	}
	if r.Verify(strings.NewReader("other bytes")) == nil {
		t.Error("other bytes were accepted")
	}
	if _, err := ReadRelease([]byte(text), "hello.js", "1.2.4"); err == nil {
		t.Error("the answer for another version was accepted")
	}
	if _, err := ReadRelease([]byte(strings.Replace(text, "sha512", "sha1", 1)), "hello.js", "1.2.3"); err == nil {
		t.Error("a weak hash was accepted")
	}
}

func FuzzWriteTar(f *testing.F) {
	f.Add(pack(f, member("package/package.json", about)))
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		if WriteTar(t.Context(), bytes.NewReader(b), &out) != nil {
			return
		}
		for r := tar.NewReader(&out); ; {
			h, err := r.Next()
			if err != nil {
				break
			}
			if !strings.HasPrefix(h.Name, "."+Folder+"/") || strings.Contains(h.Name, "/../") {
				t.Errorf("member %q lies outside", h.Name)
			}
		}
	})
}
