package secret

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"allotment/image"
)

// A certificate that the gateway hands out is used while it is good for the module's name, and the box's own otherwise.
func TestHandedCertificate(t *testing.T) {
	s := openStore(t)
	m := module(image.Secret{Name: "tls", Kind: "certificate", Host: "chat"})
	own := ensure(t, s, m, club, today)["tls.crt"].Reveal()

	authority := openStore(t) // stands for a public one
	public, err := authority.ensureCertificate(filepath.Join(authority.dir, "x", "p.pem"), []string{"chat.club.example.org"}, today)
	if err != nil {
		t.Fatal(err)
	}
	other, err := authority.ensureCertificate(filepath.Join(authority.dir, "x", "o.pem"), []string{"chat.club.example.org"}, today)
	if err != nil {
		t.Fatal(err)
	}
	s.Handed = t.TempDir()
	path := filepath.Join(s.Handed, "chat.pem")
	use := func(content string, o image.Organisation, now time.Time) string {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		all := ensure(t, s, m, o, now)
		if got := all["tls.crt"].Reveal(); got != public.chain {
			return got
		}
		if all["tls.key"].Reveal() != public.key {
			t.Error("the key is another one's")
		}
		return "public"
	}
	good := public.key + public.chain
	if got := use(good, club, today); got != "public" {
		t.Errorf("a good one is not used: %s", got)
	}
	for what, got := range map[string]string{
		"over":                use(good, club, today.Add(lifetime)),
		"of the future":       use(good, club, today.Add(-2*backdate)),
		"for another name":    use(good, image.Organisation{Domain: "other.example.org"}, today),
		"without its key":     use(public.chain, club, today),
		"with another key":    use(other.key+public.chain, club, today),
		"of some other bytes": use("hello", club, today),
		"too large":           use(good+strings.Repeat("\n", mostHanded), club, today),
	} {
		if got == "public" {
			t.Errorf("one that is %s is used", what)
		}
	}
	if got := ensure(t, s, m, club, today)["tls.crt"].Reveal(); got != own && len(got) == 0 {
		t.Errorf("there is no certificate of the box's own")
	}
}

// The folder is not ours: what lies there need be no file.
func TestHandedIsNoFile(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readForeign(secret); err != nil {
		t.Errorf("a file: %v", err)
	}
	for name, make := range map[string]func(string) error{
		"link":   func(p string) error { return os.Symlink(secret, p) },
		"pipe":   func(p string) error { return unix.Mkfifo(p, 0o600) }, // opened as usual it would hang
		"folder": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		path := filepath.Join(dir, name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if b, err := readForeign(path); err == nil {
			t.Errorf("%s: %q", name, b)
		}
	}
}
