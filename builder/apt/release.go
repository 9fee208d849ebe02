package apt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"allotment/builder/deb"
	"allotment/image"
)

// Suite is one suite of an archive that packages are taken from, component main.
type Suite struct {
	Name    string // its codename
	Archive string // Main or Security

	keys []string // embedded ones that may sign it
}

// Suites returns what Allotment is built from: Debian 13 with its updates and security updates.
func Suites() []Suite {
	return []Suite{
		{Name: "trixie", Archive: Main, keys: []string{"automatic", "stable"}},
		{Name: "trixie-updates", Archive: Main, keys: []string{"automatic"}},
		{Name: "trixie-security", Archive: Security, keys: []string{"security-automatic"}},
	}
}

// release is what a verified InRelease file says.
type release struct {
	suite   Suite
	date    time.Time
	expires time.Time // zero: never
	byHash  bool
	files   map[string]indexFile // by path below the suite's folder
}

// indexFile is a file that an InRelease file names.
type indexFile struct {
	path   string
	size   int64
	sha256 image.Digest
}

// clockSkew is how far this machine's clock may be behind the archive's.
const clockSkew = 24 * time.Hour

// readRelease verifies the InRelease file b of a suite: signed by one of keys, of this suite, and in force at the time
// now. Nothing of b is used before its signature is found good, and nothing that the signature does not cover.
func readRelease(b []byte, suite Suite, keys openpgp.EntityList, now time.Time) (*release, error) {
	text, err := verify(b, keys, now)
	if err != nil {
		return nil, err
	}
	return parseRelease(text, suite, now)
}

// parseRelease reads the text of an InRelease file.
func parseRelease(text []byte, suite Suite, now time.Time) (*release, error) {
	r := deb.NewStanzaReader(bytes.NewReader(text), "InRelease")
	s, err := r.Next()
	if err != nil {
		return nil, err
	}
	if _, err := r.Next(); err != io.EOF {
		return nil, errors.New("more than one stanza")
	}
	if got := s.Get("Codename"); got != suite.Name {
		return nil, fmt.Errorf("is of suite %q where %q is due", got, suite.Name)
	}
	rel := &release{suite: suite, byHash: s.Get("Acquire-By-Hash") == "yes"}
	if err := rel.readTimes(s, now); err != nil {
		return nil, err
	}
	rel.files, err = readHashes(s.Get("SHA256"))
	return rel, err
}

// verify returns the text that the clear-signed message b signs (RFC 9580, section 7).
func verify(b []byte, keys openpgp.EntityList, now time.Time) ([]byte, error) {
	if !bytes.HasPrefix(b, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return nil, fmt.Errorf("is not a signed index: it begins %.30q; does a web page stand in for the mirror?", b)
	}
	block, rest := clearsign.Decode(b)
	if block == nil {
		return nil, errors.New("has a damaged or incomplete signature")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("has text behind its signature")
	}
	signer, err := block.VerifySignature(keys, &packet.Config{Time: func() time.Time { return now }})
	if err != nil {
		return nil, fmt.Errorf("is not signed by Debian's keys: %w", err)
	}
	if signer == nil {
		return nil, errors.New("is not signed by Debian's keys")
	}
	return block.Plaintext, nil
}

// readTimes checks the dates of a release against the clock.
func (rel *release) readTimes(s deb.Stanza, now time.Time) error {
	var err error
	if rel.date, err = time.Parse(time.RFC1123, s.Get("Date")); err != nil {
		return fmt.Errorf("has an unreadable Date: %w", err)
	}
	if rel.date.After(now.Add(clockSkew)) {
		return fmt.Errorf("is of %s, in the future; set this machine's clock, which says %s",
			rel.date.Format(time.RFC1123), now.UTC().Format(time.RFC1123))
	}
	until := s.Get("Valid-Until")
	if until == "" {
		return nil
	}
	if rel.expires, err = time.Parse(time.RFC1123, until); err != nil {
		return fmt.Errorf("has an unreadable Valid-Until: %w", err)
	}
	if now.After(rel.expires) {
		return fmt.Errorf("expired on %s; the mirror is out of date, or this machine's clock is wrong (it says %s)",
			until, now.UTC().Format(time.RFC1123))
	}
	return nil
}

// readHashes reads the value of the field SHA256: lines of hash, size and path.
func readHashes(value string) (map[string]indexFile, error) {
	files := map[string]indexFile{}
	for line := range strings.Lines(strings.TrimSpace(value)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("has a SHA256 line %.80q that is not hash, size and path", strings.TrimSpace(line))
		}
		sum, err := image.ParseDigest("sha256:" + f[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f[2], err)
		}
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || size < 0 {
			return nil, fmt.Errorf("%s: size %q is not one", f[2], f[1])
		}
		files[f[2]] = indexFile{path: f[2], size: size, sha256: sum}
	}
	return files, nil
}

// packages is the Packages file of component main for arch, in the best compression that is offered.
func (rel *release) packages(arch image.Arch) (indexFile, error) {
	path := "main/binary-" + string(arch) + "/Packages"
	for _, ext := range []string{".xz", ".gz", ""} {
		if f, ok := rel.files[path+ext]; ok {
			return f, nil
		}
	}
	return indexFile{}, fmt.Errorf("%s names no %s", rel.suite.Name, path)
}
