package builder

import (
	"crypto/x509"
	"path/filepath"
	"testing"

	"allotment/builder/lock"
	"allotment/builder/profile"
	"allotment/image"
	"allotment/image/secureboot"
)

// TestInputsKeyNamesThings changes what decides an output's bytes or its name, and nothing else.
func TestInputsKeyNamesThings(t *testing.T) {
	source, err := FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	key := func(change func(*build)) string {
		p, err := profile.Load(filepath.Join(string(source), "profiles", "minimal.toml"))
		if err != nil {
			t.Fatal(err)
		}
		b := &build{
			Options: Options{Profile: p, Lock: &lock.Lock{}, Source: source, Arch: image.AMD64, Out: "/out"},
			keys:    &secureboot.Keys{DB: secureboot.Signer{Cert: &x509.Certificate{}}},
		}
		change(b)
		k, err := b.inputsKey()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	same := key(func(*build) {})
	if again := key(func(*build) {}); again != same {
		t.Errorf("the same inputs have keys %s and %s", same, again)
	}
	for name, change := range map[string]func(*build){
		"profile's name": func(b *build) { b.Profile.Name = "other" },
		"version":        func(b *build) { b.Profile.Version = "9.9" },
		"architecture":   func(b *build) { b.Arch = image.ARM64 },
		"folder":         func(b *build) { b.Out = "/elsewhere" },
		"command line":   func(b *build) { b.Profile.Kernel.CommandLine = "quiet" },
		"epoch":          func(b *build) { b.Lock.Epoch++ },
		"certificate":    func(b *build) { b.keys.DB.Cert.Raw = []byte{1} },
		"Go release":     func(b *build) { b.goVersion = "go1" },
		"tools":          func(b *build) { b.toolsID = "other" },
	} {
		if key(change) == same {
			t.Errorf("another %s has the same key", name)
		}
	}
}
