package certs

import (
	"crypto/x509"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// trusts tells whether somebody who trusts the box's authority alone trusts a certificate for the name.
func (o own) trusts(t *testing.T, c *x509.Certificate, name string, now time.Time) bool {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(o.authority.Leaf)
	_, err := c.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, CurrentTime: now})
	return err == nil
}

func TestOwnAuthority(t *testing.T) {
	folder, now := t.TempDir(), time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	names := normal([]string{"club.org", "box.local", "192.168.7.2", "9.9.9.9"})
	make := func(names []string, now time.Time) own {
		t.Helper()
		o, err := loadOwn(folder, names, now)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	first := make(names, now)
	for _, n := range names {
		if !first.trusts(t, first.local.Leaf, n, now) {
			t.Errorf("%s is not trusted", n)
		}
	}
	if again := make(names, now.Add(day)); !again.local.Leaf.Equal(first.local.Leaf) {
		t.Error("another certificate at every start: visitors would have to accept each")
	}
	later := make(names, now.Add(70*day))
	if later.local.Leaf.Equal(first.local.Leaf) || !later.authority.Leaf.Equal(first.authority.Leaf) {
		t.Error("after 70 days: want another certificate of the same authority")
	}
	more := normal([]string{"club.org", "portal.club.org", "192.168.7.9", "9.9.9.9"})
	if o := make(more, now); !o.authority.Leaf.Equal(first.authority.Leaf) || !o.trusts(t, o.local.Leaf, "portal.club.org", now) {
		t.Error("a name below and another address at home need another authority")
	}
	o := make([]string{"other.org"}, now)
	if o.authority.Leaf.Equal(first.authority.Leaf) || !o.trusts(t, o.local.Leaf, "other.org", now) {
		t.Error("the authority certifies names that it must not")
	}
	now = now.Add(authorityLife)
	if o := make([]string{"other.org"}, now); !o.trusts(t, o.local.Leaf, "other.org", now) {
		t.Error("nothing comes after ten years")
	}
}

// TestOwnAuthorityIsConstrained: whoever steals its key can be nobody else.
func TestOwnAuthorityIsConstrained(t *testing.T) {
	folder, now := t.TempDir(), time.Now()
	o, err := loadOwn(folder, []string{"club.org"}, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"club.org": true, "www.club.org": true, "box.local": true, "10.1.2.3": true,
		"bank.org": false, "notclub.org": false, "9.9.9.9": false,
	} {
		c := &x509.Certificate{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), DNSNames: []string{name}}
		if ip := net.ParseIP(name); ip != nil {
			c.DNSNames, c.IPAddresses = nil, []net.IP{ip}
		}
		stolen, err := certify(filepath.Join(folder, "stolen.pem"), c, o.authority)
		if err != nil {
			t.Fatal(err)
		}
		if o.trusts(t, stolen.Leaf, name, now) != want {
			t.Errorf("trusts a certificate for %s: want %v", name, want)
		}
	}
}

func TestSpoiltFilesAreMadeAnew(t *testing.T) {
	folder := t.TempDir()
	for _, f := range []string{"authority.pem", "local.pem"} {
		if err := write(filepath.Join(folder, f), []byte("-----BEGIN CERT")); err != nil {
			t.Fatal(err)
		}
	}
	if o, err := loadOwn(folder, []string{"club.org"}, time.Now()); err != nil || o.local == nil {
		t.Error(err)
	}
}

func FuzzNormal(f *testing.F) {
	f.Add("Club.org.")
	f.Add("::ffff:10.0.0.1")
	f.Add("../../etc")
	f.Add("0..")
	f.Fuzz(func(t *testing.T, name string) {
		for _, n := range normal([]string{name}) {
			if n == "." || n == ".." || filepath.Base(n) != n && net.ParseIP(n) == nil {
				t.Errorf("%q becomes %q, which is no name of a file", name, n)
			}
			if again := normal([]string{n}); len(again) != 1 || again[0] != n {
				t.Errorf("%q is %q, and that %q", name, n, again)
			}
		}
	})
}
