package apt

import (
	"embed"
	"fmt"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
)

// The keys are those of Debian's package debian-archive-keyring, exported with gpg --export --armor.
//
//go:embed keys/*.asc
var keyFiles embed.FS

// debianKeys reads the embedded keys with the given names.
func debianKeys(names ...string) openpgp.EntityList {
	var all openpgp.EntityList
	for _, name := range names {
		b, err := keyFiles.ReadFile("keys/debian-archive-trixie-" + name + ".asc")
		if err != nil {
			panic("apt: " + err.Error()) // embedded
		}
		keys, err := openpgp.ReadArmoredKeyRing(strings.NewReader(string(b)))
		if err != nil {
			panic(fmt.Sprintf("apt: key %s: %v", name, err)) // embedded
		}
		all = append(all, keys...)
	}
	return all
}
