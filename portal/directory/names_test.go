package directory

import (
	"errors"
	"testing"

	"github.com/go-ldap/ldap/v3"
)

// FuzzPersonDN looks that a name either is refused or becomes one entry right below the folder of people, and comes back.
func FuzzPersonDN(f *testing.F) {
	for _, name := range []string{"anna", "a.b-c_9", "", "Anna", "9lives", "anna,ou=groups", "anna+cn=x", `an\6ea`, "an\x00na",
		"ännchen", " anna", "anna ", "*", "probe-web", "anna)(uid=*"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		dn, err := personDN(name)
		if err != nil {
			if !errors.Is(err, ErrName) {
				t.Errorf("error %v", err)
			}
			return
		}
		d, err := ldap.ParseDN(dn)
		if err != nil || len(d.RDNs) != 3 || len(d.RDNs[0].Attributes) != 1 || nameOf(dn) != name {
			t.Errorf("%q becomes %q, error %v", name, dn, err)
		}
	})
}

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{"anna": true, "a.b-c_9": true, "": false, "Anna": false, "9lives": false,
		"anna,ou=groups": false, "probe-web": false, "probe": true, "*": false} {
		if _, err := personDN(name); (err == nil) != good {
			t.Errorf("%q: error %v", name, err)
		}
	}
	if got := nameOf("not a name"); got != "" {
		t.Errorf("it names %q", got)
	}
}
