package apt

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/ulikunitz/xz"

	"allotment/builder/profile"
	"allotment/image"
	"allotment/internal/cache"
)

// today is the time of the tests.
var today = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// archive is a small Debian archive behind a real HTTP server. Its files can be changed to break it.
type archive struct {
	*httptest.Server
	key *openpgp.Entity

	mu       sync.Mutex
	files    map[string][]byte
	handlers map[string]http.HandlerFunc // in place of files
	asked    []string                    // paths, in order
}

// newArchive serves the suites with one package, hello, in each of the two archives.
func newArchive(t *testing.T) *archive {
	t.Helper()
	a := &archive{key: newKey(t), files: map[string][]byte{}, handlers: map[string]http.HandlerFunc{}}
	for _, s := range Suites() {
		a.publish(t, s.Name, a.packagesOf(s.Name), "")
	}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func newKey(t testing.TB) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity("Test", "", "test@example.org", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return today.AddDate(-1, 0, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// ServeHTTP implements http.Handler.
func (a *archive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.asked = append(a.asked, r.URL.Path)
	file, ok := a.files[r.URL.Path]
	handler := a.handlers[r.URL.Path]
	a.mu.Unlock()
	switch {
	case handler != nil:
		handler(w, r)
	case ok:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
	default:
		http.NotFound(w, r)
	}
}

// requests counts how often a path was asked for.
func (a *archive) requests(path string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, p := range a.asked {
		if p == path {
			n++
		}
	}
	return n
}

// client returns a client of the archive with a new cache.
func (a *archive) client(t *testing.T) *Client {
	c := New(cache.Dir(t.TempDir()), profile.Debian{
		Mirror: a.URL + "/debian", Security: a.URL + "/debian-security", Snapshot: a.URL + "/snapshot",
	}, today.Unix())
	c.keys = func(...string) openpgp.EntityList { return openpgp.EntityList{a.key} }
	c.http.backoff = time.Millisecond
	return c
}

// content is that of the one package of a suite.
func content(suite string) []byte { return bytes.Repeat([]byte("package of "+suite+"\n"), 10000) }

// hello is the package of a suite, as an index names it.
func hello(suite string) Package {
	b := content(suite)
	p := Package{
		Name: "hello", Version: map[string]string{"trixie": "2.10-5", "trixie-updates": "2.9", "trixie-security": "2.10-5+deb13u1"}[suite],
		Arch: "amd64", Source: "hello", Archive: Main, Size: int64(len(b)), SHA256: image.NewDigest(sha256.Sum256(b)),
	}
	if suite == "trixie-security" {
		p.Archive = Security
	}
	p.Path = "pool/main/h/hello/hello_" + p.Version + "_amd64.deb"
	return p
}

// packagesOf is the Packages file of a suite. It puts the package into the pool, too.
func (a *archive) packagesOf(suite string) string {
	p := hello(suite)
	a.files[mirrorPath(suite)+"/"+p.Path] = content(suite)
	return fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nPriority: optional\nDepends: libc6\nDescription: greets\n at length\n"+
		"Filename: %s\nSize: %d\nSHA256: %s\n\n", p.Name, p.Version, p.Arch, p.Path, p.Size, p.SHA256.Hex())
}

func mirrorPath(suite string) string {
	if suite == "trixie-security" {
		return "/debian-security"
	}
	return "/debian"
}

// publish signs and serves the indexes of a suite; edit, of the form OLD=>NEW, changes the text before it is signed.
func (a *archive) publish(t testing.TB, suite, packages, edit string) {
	var packed bytes.Buffer
	w, err := xz.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(packages))
	w.Close()
	sum := fmt.Sprintf("%x", sha256.Sum256(packed.Bytes()))
	text := fmt.Sprintf("Origin: Debian\nCodename: %s\nDate: %s\nValid-Until: %s\nAcquire-By-Hash: yes\nSHA256:\n",
		suite, today.Add(-time.Hour).Format(time.RFC1123), today.Add(24*time.Hour).Format(time.RFC1123))
	dists := mirrorPath(suite) + "/dists/" + suite
	for _, arch := range []string{"amd64", "arm64"} {
		folder := "main/binary-" + arch
		text += fmt.Sprintf(" %s %8d %s/Packages.xz\n", sum, packed.Len(), folder)
		a.files[dists+"/"+folder+"/by-hash/SHA256/"+sum] = packed.Bytes()
		a.files[dists+"/"+folder+"/Packages.xz"] = packed.Bytes()
	}
	before, after, _ := strings.Cut(edit, "=>")
	a.files[dists+"/InRelease"] = sign(t, a.key, strings.Replace(text, before, after, 1))
}

// sign clear-signs text.
func sign(t testing.TB, key *openpgp.Entity, text string) []byte {
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, key.PrivateKey, &packet.Config{Time: func() time.Time { return today.Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(text))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n")
	return b.Bytes()
}
