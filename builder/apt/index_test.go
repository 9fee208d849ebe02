package apt

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/google/go-cmp/cmp"

	"allotment/image"
	"allotment/internal/progress"
)

func TestUpdate(t *testing.T) {
	a := newArchive(t)
	x, err := a.client(t).Update(t.Context(), []image.Arch{image.AMD64, image.ARM64}, today, progress.Silent{})
	if err != nil {
		t.Fatal(err)
	}
	if want := today.Add(-time.Hour); !x.Date.Equal(want) {
		t.Errorf("date is %s, want %s", x.Date, want)
	}
	var got []Package
	for _, e := range x.Entries[image.AMD64] {
		got = append(got, e.Package)
	}
	want := []Package{hello("trixie"), hello("trixie-updates"), hello("trixie-security")}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := x.Entries[image.ARM64][0].Relations; got.Get("Depends") != "libc6" || got.Get("Description") != "" {
		t.Errorf("relations are %v", got)
	}
	newest, err := x.Newest(image.AMD64, "hello")
	if err != nil || newest != hello("trixie-security") {
		t.Errorf("newest is %v; error %v", newest, err)
	}
	if _, err := x.Newest(image.AMD64, "helo"); err == nil {
		t.Error("found a package that is not there")
	}
}

// TestUpdateRefuses breaks one thing at a time.
func TestUpdateRefuses(t *testing.T) {
	const index = "/debian/dists/trixie-updates/InRelease"
	edit := func(old, new string) func(*testing.T, *archive) {
		return func(t *testing.T, a *archive) {
			a.publish(t, "trixie-updates", a.packagesOf("trixie-updates"), old+"=>"+new)
		}
	}
	replace := func(old, new string) func(*testing.T, *archive) {
		return func(t *testing.T, a *archive) {
			if !bytes.Contains(a.files[index], []byte(old)) {
				t.Fatalf("the index has no %q", old)
			}
			a.files[index] = bytes.Replace(a.files[index], []byte(old), []byte(new), 1)
		}
	}
	date := func(days int) string { return today.AddDate(0, 0, days).Format(time.RFC1123) }
	hour := today.Add(-time.Hour).Format(time.RFC1123)
	for _, c := range []struct {
		name  string
		spoil func(*testing.T, *archive)
		want  string
	}{
		{"flipped text", replace("Origin: Debian", "Origin: Debiam"), "not signed by Debian's keys"},
		{"flipped signature", func(t *testing.T, a *archive) {
			i := bytes.Index(a.files[index], []byte("BEGIN PGP SIGNATURE")) + 60
			a.files[index][i] ^= 1
		}, "sign"},
		{"no signature", replace("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n", ""), "is not a signed index"},
		{"cut signature", replace("-----END PGP SIGNATURE-----", ""), "damaged or incomplete signature"},
		{"text before", replace("-----BEGIN PGP SIGNED", "Codename: trixie\n-----BEGIN PGP SIGNED"), "is not a signed index"},
		{"text behind", replace("-----END PGP SIGNATURE-----", "-----END PGP SIGNATURE-----\nx"), "text behind"},
		{"other key", func(t *testing.T, a *archive) {
			right := a.key
			a.key = newKey(t)
			edit("", "")(t, a)
			a.key = right
		}, "not signed by Debian's keys"},
		{"web page", replace("-----BEGIN PGP SIGNED MESSAGE-----", "<html>"), "does a web page stand in"},
		{"expired", edit(date(1), date(-1)), "expired on"},
		{"unreadable expiry", edit(date(1), "soon"), "unreadable Valid-Until"},
		{"future", edit(hour, date(3)), "in the future"},
		{"no date", edit("Date: "+hour+"\n", ""), "unreadable Date"},
		{"other suite", edit("trixie-updates", "trixie"), `is of suite "trixie"`},
		{"two stanzas", edit("SHA256:", "A: b\n\nSHA256:"), "more than one stanza"},
		{"no index", edit("binary-arm64", "binary-armhf"), "names no main/binary-arm64/Packages"},
		{"bad hash line", edit(" main/binary-amd64", " x main/binary-amd64"), "not hash, size and path"},
		{"gone", func(_ *testing.T, a *archive) { delete(a.files, index) }, "404"},
		{"offline", func(_ *testing.T, a *archive) { a.Close() }, "making a lock needs the network"},
		{"other packages", func(_ *testing.T, a *archive) {
			for path, b := range a.files {
				if strings.HasPrefix(path, "/debian/dists/trixie-updates/main/binary-amd64/by-hash") {
					a.files[path] = append(bytes.Clone(b[:len(b)-1]), b[len(b)-1]^1)
				}
			}
		}, "wrong bytes"},
		{"damaged package stanza", func(t *testing.T, a *archive) {
			a.publish(t, "trixie-updates", strings.Replace(a.packagesOf("trixie-updates"), "pool/", "../", 1), "")
		}, "is not a .deb below pool/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newArchive(t)
			c.spoil(t, a)
			client := a.client(t)
			_, err := client.Update(t.Context(), []image.Arch{image.AMD64, image.ARM64}, today, progress.Silent{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want it to say %q", err, c.want)
			}
			left, _ := os.ReadDir(client.cache.Path("index", ""))
			for _, e := range left {
				if strings.HasSuffix(e.Name(), ".tmp") {
					t.Errorf("left %s in the cache", e.Name())
				}
			}
		})
	}
}

func TestUpdateWithoutByHash(t *testing.T) {
	a := newArchive(t)
	for _, s := range Suites() {
		a.publish(t, s.Name, a.packagesOf(s.Name), "By-Hash: yes=>By-Hash: no")
	}
	if _, err := a.client(t).Update(t.Context(), []image.Arch{image.AMD64}, today, progress.Silent{}); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(a.asked, "/debian/dists/trixie/main/binary-amd64/Packages.xz") {
		t.Errorf("asked for %v", a.asked)
	}
}

// TestIndexCached reads an unchanged index again without fetching it.
func TestIndexCached(t *testing.T) {
	a := newArchive(t)
	c := a.client(t)
	for range 2 {
		if _, err := c.Update(t.Context(), []image.Arch{image.AMD64}, today, progress.Silent{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range a.asked {
		if n := a.requests(path); strings.Contains(path, "by-hash") && n != 1 {
			t.Errorf("%s fetched %d times", path, n)
		}
	}
}

// TestEmbeddedKeys checks that the keys are Debian's, by the fingerprints that Debian publishes.
func TestEmbeddedKeys(t *testing.T) {
	for name, want := range map[string]string{
		"automatic":          "04B54C3CDCA79751B16BC6B5225629DF75B188BD",
		"security-automatic": "5E04A1E3223A19A20706E20F9904613D4CCE68C6",
		"stable":             "41587F7DB8C774BCCF131416762F67A0B2C39DE4",
	} {
		keys := debianKeys(name)
		if len(keys) != 1 {
			t.Fatalf("%s: %d keys", name, len(keys))
		}
		if got := fmt.Sprintf("%X", keys[0].PrimaryKey.Fingerprint); got != want {
			t.Errorf("%s: fingerprint is %s, want %s", name, got, want)
		}
	}
}

func FuzzRelease(f *testing.F) {
	suite := Suites()[0]
	f.Add([]byte("Codename: trixie\nDate: Sun, 22 Nov 2026 11:00:00 UTC\nSHA256:\n " + strings.Repeat("ab", 32) + " 5 main/binary-amd64/Packages.xz\n"))
	f.Add([]byte("Codename: trixie\nDate: Sun, 22 Nov 2026 11:00:00 UTC\nValid-Until: x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rel, err := parseRelease(b, suite, today)
		if err != nil {
			return
		}
		if rel.date.After(today.Add(clockSkew)) {
			t.Error("accepted a date in the future")
		}
		if p, err := rel.packages(image.AMD64); err == nil && p.size < 0 {
			t.Errorf("accepted size %d", p.size)
		}
	})
}

func FuzzVerify(f *testing.F) {
	key := newKey(f)
	good := sign(f, key, "Codename: trixie\n")
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := verify(b, openpgp.EntityList{key}, today)
		if err == nil && string(bytes.TrimRight(text, " \t\r\n")) != "Codename: trixie" {
			t.Errorf("accepted a text that was never signed: %q", text)
		}
	})
}

func FuzzPackages(f *testing.F) {
	a := &archive{files: map[string][]byte{}}
	f.Add([]byte(a.packagesOf("trixie")))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := readEntries(t.Context(), bytes.NewReader(b), "Packages", Main)
		for _, e := range entries {
			if err == nil && e.Check() != nil {
				t.Errorf("accepted %v", e)
			}
		}
	})
}
